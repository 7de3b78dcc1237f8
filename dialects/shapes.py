"""Shapes that several ops infer, and what they check of them."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.core import Op, Value
from compiler.ir.types import I32, TensorType


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (a, b)]
    return tuple(y if x == 1 else x for x, y in zip(*padded, strict=True))


def concatenated(parts: Sequence[Value[TensorType]], axis: int) -> TensorType:
    shape = list(parts[0].type.shape)
    shape[axis] = sum(part.type.shape[axis] for part in parts)
    return TensorType(tuple(shape), parts[0].type.element)


def rows_type(table: TensorType, ids: TensorType) -> TensorType:
    return TensorType((*ids.shape, *table.shape[1:]), table.element)


def check_concatenation(op: Op, parts: Sequence[Value[TensorType]], axis: int) -> None:
    if not parts:
        op.fail("joins nothing")
    for part in parts:
        check_axis(op, axis, part.type)
    others = {part.type.shape[:axis] + part.type.shape[axis + 1 :] for part in parts}
    if len(others) != 1:
        op.fail(f"operands differ outside of axis {axis}: {', '.join(str(part.type) for part in parts)}")


def check_broadcast(op: Op, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y and 1 not in (x, y):
            op.fail(f"shapes {list(a)} and {list(b)} do not broadcast")


def check_axis(op: Op, axis: int, x: TensorType) -> None:
    if not 0 <= axis < len(x.shape):
        op.fail(f"axis {axis} is outside of {x}")


def check_range(op: Op, x: TensorType, axis: int, bounds: tuple[int, int, int]) -> None:
    start, stop, step = bounds
    check_axis(op, axis, x)
    if not 0 <= start < stop <= x.shape[axis] or step < 1:
        op.fail(f"range {start}:{stop}:{step} does not fit axis {axis} of {x}")


def check_count(op: Op, count: int, x: TensorType) -> None:
    if not x.shape or not 1 <= count <= x.shape[-1]:
        op.fail(f"asks for {count}, expected at least 1 and no more than the last axis of {x} has")


def check_row_indices(op: Op, table: TensorType, ids: TensorType) -> None:
    if len(table.shape) != 2 or ids.element != I32:
        op.fail(f"expected a table of two axes and i32 indices, got {table} and {ids}")


def check_projection(op: Op, x: TensorType, weight: TensorType, bias: TensorType | None) -> None:
    if len(weight.shape) != 2 or weight.shape[1] != x.shape[-1]:
        op.fail(f"weight is {weight}, expected [N, {x.shape[-1]}] to match the last axis of x")
    if bias is not None and bias.shape != weight.shape[:1]:
        op.fail(f"bias is {bias}, expected [{weight.shape[0]}] to match the weight")
