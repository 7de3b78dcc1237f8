"""CMP: compare two operands and select between two payloads, or between the operands and the payloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from compiler.target.isa import ALIGNED, STRIDED, Instruction
from runtime_sim.machine.floats import to_f32
from runtime_sim.machine.instructions.compare import FLOAT_COMPARE, larger, smaller
from runtime_sim.machine.instructions.operands import (
    Operands,
    Pieces,
    Plan,
    dtype_of,
    elementwise,
    is_float,
    layout_strides,
)

if TYPE_CHECKING:
    from runtime_sim.machine.machine import Machine

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]

INTEGER_COMPARE: dict[str, Compare] = {"gt": np.greater, "eq": np.equal, "lt": np.less}
CONDITION = {"gt_and_sel": "gt", "sel_gt": "gt", "sel_eq": "eq", "lt_and_sel": "lt", "sel_lt": "lt"}


def prepare(machine: Machine, instruction: Instruction) -> Plan:
    """res0 = opd0 ? opd1 comparison selecting opd2 or opd3; the `and_sel` kinds put that into res1.

    Their res0 is the larger (gt) or the smaller (lt) of opd0 and opd1.
    """
    operands = Operands(machine, instruction)
    f, kind = operands.fields, instruction.kind
    compared = dtype_of(f["opd0_prec"], f["opd0_sign"])
    payload = dtype_of(f["opd2_prec"])
    both = kind.endswith("and_sel")
    selected = operands.at(
        "res1" if both else "res0", *_aligned(operands, "res1" if both else "res0", payload)
    )
    count = len(selected)
    sources = [_compared(operands, p, compared, count) for p in ("opd0", "opd1")]
    sources += [_payload(operands, p, payload, count) for p in ("opd2", "opd3")]
    if not both:
        return elementwise(selected, sources, _selector(kind, compared))
    extreme = operands.at("res0", *_aligned(operands, "res0", compared))
    return _two_results(extreme, selected, sources, _extreme(kind, compared), _selector(kind, compared))


def _two_results(
    extreme: Pieces,
    selected: Pieces,
    sources: list[Pieces],
    pick: Callable[..., np.ndarray],
    select: Callable[..., np.ndarray],
) -> Plan:
    """Both results are computed before either is written."""
    rows = list(zip(extreme, selected, *sources, strict=True))

    def run() -> None:
        values = [(pick(*row[2:4]), select(*row[2:])) for row in rows]
        for row, (extreme_value, selected_value) in zip(rows, values, strict=True):
            row[0][...] = extreme_value
            row[1][...] = selected_value

    return run


def _aligned(
    operands: Operands, prefix: str, dtype: np.dtype
) -> tuple[tuple[int, int, int, int], tuple[int, ...], np.dtype]:
    """Shape, strides and type of a result or payload, which are always EU-aligned."""
    operands.check_alignment(prefix)
    shape = operands.result_shape
    lane = operands.machine.local.start_lane(operands.fields[f"{prefix}_addr"])
    return shape, layout_strides(ALIGNED, shape, dtype.itemsize, operands.machine.spec, lane), dtype


def _compared(operands: Operands, prefix: str, dtype: np.dtype, count: int) -> Pieces:
    """A compared operand: constant, aligned tensor, or (layout 3) one value per lane."""
    f = operands.fields
    if f[f"{prefix}_const"]:
        return (operands.constant(prefix, dtype),) * count
    operands.check_lane(prefix)
    if f[f"{prefix}_str"] == STRIDED:
        return operands.at(prefix, operands.result_shape, (0, 0, 0, 0), dtype)
    return operands.tensor(prefix, operands.result_shape, dtype)


def _payload(operands: Operands, prefix: str, dtype: np.dtype, count: int) -> Pieces:
    if operands.fields[f"{prefix}_const"]:
        return (operands.constant(prefix, dtype),) * count
    operands.check_lane(prefix)
    return operands.at(prefix, *_aligned(operands, prefix, dtype))


def _selector(kind: str, compared: np.dtype) -> Callable[..., np.ndarray]:
    condition = CONDITION[kind]
    if not is_float(compared):
        compare = INTEGER_COMPARE[condition]
        return lambda a, b, yes, no: np.where(compare(a, b), yes, no)
    compare_floats = FLOAT_COMPARE[condition]
    return lambda a, b, yes, no: np.where(compare_floats(to_f32(a), to_f32(b)), yes, no)


def _extreme(kind: str, compared: np.dtype) -> Callable[..., np.ndarray]:
    greatest = CONDITION[kind] == "gt"
    if not is_float(compared):
        return np.maximum if greatest else np.minimum
    return larger if greatest else smaller
