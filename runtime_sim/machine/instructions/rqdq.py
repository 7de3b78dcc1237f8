"""RQ and DQ: requantization and dequantization with parameters per channel."""

from __future__ import annotations

import numpy as np

from compiler.sizes import round_up
from compiler.target.isa import Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import F32, settle
from runtime_sim.machine.instructions.cast import to_integer
from runtime_sim.machine.instructions.operands import (
    I32,
    U32,
    Operands,
    Plan,
    dtype_of,
    elementwise,
)
from runtime_sim.machine.memory import Pieces


def prepare(core: Core, instruction: Instruction) -> Plan:
    """dq0: (opd0 - zero point) * scale into f32; rq0: round(opd0 * scale + offset) into an integer.

    opd1 holds two 32-bit parameters per channel, EU-aligned: zero point (int32) and scale (f32) for dq0,
    scale and offset (both f32) for rq0.
    """
    operands = Operands(core, instruction)
    f, kind = operands.fields, instruction.kind
    source_type = operands.dtype("opd0")
    result_type = dtype_of(f["res0_prec"], f["opd2_sign"])
    if kind == "dq0" and (result_type != F32 or source_type.itemsize > 2):
        raise SimulationError(f"rqdq.dq0 from {source_type} to {result_type} is not modelled")
    if kind == "rq0" and source_type != I32:
        raise SimulationError(f"rqdq.rq0 from {source_type} is not modelled")
    if kind == "dq0" and source_type.kind == "u":
        raise SimulationError("rqdq.dq0 of unsigned values is not modelled")
    if kind not in ("dq0", "rq0") or f["opd1_const"] or f["opd2_n_str"]:
        raise SimulationError(f"rqdq.{kind} with these operands is not modelled")
    result = operands.tensor("res0", operands.result_shape, result_type)
    sources = [operands.tensor("opd0", operands.result_shape, source_type), _parameters(operands)]
    return elementwise(
        result, sources, dequantize if kind == "dq0" else lambda x, p: requantize(x, p, result_type)
    )


def _parameters(operands: Operands) -> Pieces:
    """Both parameters of every channel, as bits: last axis 2."""
    n, c, h, _ = operands.result_shape
    slot = round_up(2, operands.core.spec.eu_items(4))
    return operands.at("opd1", (n, c, h, 2), (0, slot, 0, 1), U32)


def dequantize(x: Array, parameters: Array) -> Array:
    """(x - zero point) * scale; the difference is exact, the product rounded once."""
    zero_point, scale = parameters[..., :1].view(I32), parameters[..., 1:].view(F32)
    return settle((x.astype(np.int32) - zero_point).astype(F32) * scale)


def requantize(x: Array, parameters: Array, result: DType) -> Array:
    """round(x * scale + offset), cut to the result's range."""
    scale, offset = parameters[..., :1].view(F32), parameters[..., 1:].view(F32)
    return to_integer(settle(settle(x.astype(F32) * scale) + offset), result, 0)
