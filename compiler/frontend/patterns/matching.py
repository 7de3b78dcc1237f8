"""Small questions that patterns ask of values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from compiler.ir.core import Value
from dialects import llm


class Binary(Protocol):
    """An op of two operands, or of one and a number."""

    lhs: Value
    rhs: Value | None
    value: float | None


def both_orders(op: Binary) -> Iterator[tuple[Value, Value]]:
    """The operands of a commutative op, either first; nothing if one is a number."""
    if op.rhs is not None:
        yield op.lhs, op.rhs
        yield op.rhs, op.lhs


def scaled_by(x: Value, number: float) -> Value | None:
    """The value that `x` is `number` times of."""
    op = x.defining(llm.MulOp)
    return op.lhs if op and op.value is not None and close(op.value, number) else None


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


def last_axis(x: Value) -> int:
    return len(x.type.shape) - 1


def slice_range(x: Value, of: Value) -> tuple[int, int, int] | None:
    """Start, stop and step if `x` is a slice of the last axis of `of`."""
    op = x.defining(llm.SliceOp)
    if op is None or op.x is not of or op.axis != last_axis(of):
        return None
    return op.start, op.stop, op.step


def sliced(x: Value) -> Value | None:
    """What `x` is a slice of."""
    op = x.defining(llm.SliceOp)
    return op.x if op else None
