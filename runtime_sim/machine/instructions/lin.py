"""LIN: fused per-channel operations of two roundings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import narrow, product, settle, to_f32
from runtime_sim.machine.instructions.operands import Operands, Plan, elementwise, is_float
from runtime_sim.machine.memory import Pieces


def prepare(core: Core, instruction: Instruction) -> Plan:
    """mac: opd0 * opd1 + opd2; square_sum: (opd0 + opd1)**2; square_diff: (opd0 - opd1)**2.

    opd1 and opd2 hold one value per channel, compact.
    """
    operands = Operands(core, instruction)
    dtype = operands.dtype("res0")
    if not is_float(dtype):
        raise SimulationError(f"lin on {dtype} is not modelled")
    result = operands.tensor("res0", operands.result_shape, dtype)
    sources = [
        operands.source("opd0", dtype, len(result)),
        _per_channel(operands, "opd1", dtype, len(result)),
    ]
    if instruction.kind == "mac":
        sources.append(_per_channel(operands, "opd2", dtype, len(result)))
    return elementwise(result, sources, _function(instruction.kind, dtype))


def _per_channel(operands: Operands, prefix: str, dtype: DType, count: int) -> Pieces:
    if operands.fields[f"{prefix}_const"]:
        return (operands.constant(prefix, dtype),) * count
    operands.check_lane(prefix)
    return operands.at(prefix, operands.result_shape, (0, 1, 0, 0), dtype)


def _function(kind: str, dtype: DType) -> Callable[..., Array]:
    def wide(x: Array) -> Array:
        return settle(to_f32(x))

    if kind == "mac":
        return lambda a, b, c: narrow(settle(wide(product(a, b, dtype)) + wide(c)), dtype)
    combine = np.add if kind == "square_sum" else np.subtract

    def square(a: Array, b: Array) -> Array:
        value = narrow(settle(combine(wide(a), wide(b))), dtype)
        return product(value, value, dtype)

    return square
