"""CMP: compare two operands and select between two payloads, or between the operands and the payloads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.target.isa import STRIDED, Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.floats import to_f32
from runtime_sim.machine.instructions.compare import FLOAT_COMPARE, INTEGER_COMPARE, larger, smaller
from runtime_sim.machine.instructions.operands import (
    Operands,
    Plan,
    dtype_of,
    elementwise,
    is_float,
)
from runtime_sim.machine.memory import Pieces

Pick = Callable[[Array, Array], Array]  # one of the two compared
Select = Callable[[Array, Array, Array, Array], Array]  # of the two compared, one of two others

CONDITION = {"gt_and_sel": "gt", "sel_gt": "gt", "sel_eq": "eq", "lt_and_sel": "lt", "sel_lt": "lt"}


def prepare(core: Core, instruction: Instruction) -> Plan:
    """res0 = opd0 ? opd1 comparison selecting opd2 or opd3; the `and_sel` kinds put that into res1.

    Their res0 is the larger (gt) or the smaller (lt) of opd0 and opd1.
    """
    operands = Operands(core, instruction)
    f, kind = operands.fields, instruction.kind
    compared = dtype_of(f["opd0_prec"], f["opd0_sign"])
    payload = dtype_of(f["opd2_prec"])
    both = kind.endswith("and_sel")
    shape = operands.result_shape
    selected = operands.aligned("res1" if both else "res0", shape, payload)
    count = len(selected)
    sources = [_compared(operands, p, compared, count) for p in ("opd0", "opd1")]
    sources += [_payload(operands, p, payload, count) for p in ("opd2", "opd3")]
    if not both:
        return elementwise(selected, sources, _selector(kind, compared))
    extreme = operands.aligned("res0", shape, compared)
    return _two_results(extreme, selected, sources, _extreme(kind, compared), _selector(kind, compared))


def _two_results(
    extreme: Pieces,
    selected: Pieces,
    sources: list[Pieces],
    pick: Pick,
    select: Select,
) -> Plan:
    """Both results are computed before either is written."""
    rows = list(zip(extreme, selected, *sources, strict=True))

    def run() -> None:
        values = [(pick(*row[2:4]), select(*row[2:])) for row in rows]
        for row, (extreme_value, selected_value) in zip(rows, values, strict=True):
            row[0][...] = extreme_value
            row[1][...] = selected_value

    return run


def _compared(operands: Operands, prefix: str, dtype: DType, count: int) -> Pieces:
    """A compared operand: constant, aligned tensor, or (layout 3) one value per lane."""
    f = operands.fields
    if f[f"{prefix}_const"]:
        return (operands.constant(prefix, dtype),) * count
    operands.check_lane(prefix)
    if f[f"{prefix}_str"] == STRIDED:
        return operands.at(prefix, operands.result_shape, (0, 0, 0, 0), dtype)
    return operands.tensor(prefix, operands.result_shape, dtype)


def _payload(operands: Operands, prefix: str, dtype: DType, count: int) -> Pieces:
    if operands.fields[f"{prefix}_const"]:
        return (operands.constant(prefix, dtype),) * count
    operands.check_lane(prefix)
    return operands.aligned(prefix, operands.result_shape, dtype)


def _selector(kind: str, compared: DType) -> Select:
    condition = CONDITION[kind]

    def of_integers(a: Array, b: Array, yes: Array, no: Array) -> Array:
        return np.where(INTEGER_COMPARE[condition](a, b), yes, no)

    def of_floats(a: Array, b: Array, yes: Array, no: Array) -> Array:
        return np.where(FLOAT_COMPARE[condition](to_f32(a), to_f32(b)), yes, no)

    return of_floats if is_float(compared) else of_integers


def _extreme(kind: str, compared: DType) -> Pick:
    greatest = CONDITION[kind] == "gt"
    if not is_float(compared):
        return np.maximum if greatest else np.minimum
    return larger if greatest else smaller
