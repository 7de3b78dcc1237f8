"""SFU: reciprocal square root and polynomials."""

from __future__ import annotations

from collections.abc import Callable

from compiler.target.isa import Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import F32, narrow, product, settle, to_f32
from runtime_sim.machine.instructions.operands import Operands, Plan, elementwise, is_float
from runtime_sim.machine.instructions.reciprocal import checked_square_root, reciprocal_square_root
from runtime_sim.machine.memory import Pieces, split_channels

Function = Callable[..., Array]


def prepare(core: Core, instruction: Instruction) -> Plan:
    """The plan of one SFU instruction."""
    operands = Operands(core, instruction)
    source_type, result_type = operands.dtype("opd0"), operands.dtype("res0")
    result = operands.tensor("res0", operands.result_shape, result_type)
    sources = [operands.source("opd0", source_type, len(result))]
    if instruction.kind.startswith("taylor"):
        if source_type != result_type or not is_float(source_type):
            raise SimulationError(f"sfu.{instruction.kind} from {source_type} to {result_type}")
        return elementwise(result, [*sources, _coefficients(operands, source_type)], polynomial)
    return elementwise(result, sources, _function(operands, source_type, result_type))


def _function(operands: Operands, source: DType, result: DType) -> Function:
    kind = operands.instruction.kind
    if kind == "rsqrt" and source == result == F32:
        steps = operands.fields["opd2_n_str"] + 1
        root = checked_square_root if operands.core.spec.checked_roots else reciprocal_square_root
        return lambda x: root(x, steps)
    raise SimulationError(f"sfu.{kind} from {source} to {result} is not modelled")


def _coefficients(operands: Operands, dtype: DType) -> Pieces:
    """The rows of coefficients, at one offset in every lane: [1, 1, lanes, 1, count] per result piece."""
    local, count = operands.core.local, operands.fields["opd1_n"]
    if count < 2:
        raise SimulationError(f"a polynomial of {count} coefficients")
    offset = operands.fields["opd1_addr"] % local.lane_bytes
    return tuple(
        local.pieces(grid.lane * local.lane_bytes + offset, (1, grid.lanes, 1, count), (0, 0, 0, 1), dtype)[0]
        for grid in split_channels(operands.lane("res0"), operands.fields["res0_c"], local.lanes)
    )


def polynomial(x: Array, coefficients: Array) -> Array:
    """Horner's rule, product and sum rounded separately to the operands' type.

    x [n, slots, lanes, h, w]; coefficients [n, slots, lanes, 1, count], lowest power first.
    """
    dtype = x.dtype
    c = [coefficients[..., k : k + 1] for k in range(coefficients.shape[-1])]
    total = c[-1]
    for k in range(len(c) - 2, -1, -1):
        scaled = product(total, x, dtype)
        total = narrow(settle(settle(to_f32(scaled)) + settle(to_f32(c[k]))), dtype)
    return total
