"""Small questions that patterns ask of values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Region:
    """Elements start, start + step, ... before stop of the last axis of a value."""

    of: Value
    start: int
    stop: int
    step: int = 1

    def part(self, start: int, stop: int, step: int = 1) -> Region:
        """A region of this one, which must be contiguous."""
        return Region(self.of, self.start + start, self.start + stop, step)

    @property
    def width(self) -> int:
        return len(range(self.start, self.stop, self.step))


def region(x: Value) -> Region:
    """What `x` is a slice of; all of itself if it is none."""
    op = x.defining(llm.SliceOp)
    if op is None or op.axis != last_axis(x):
        return Region(x, 0, x.type.shape[-1])
    return Region(op.x, op.start, range(op.start, op.stop, op.step)[-1] + 1, op.step)


def concat_parts(x: Value) -> tuple[Value, Value] | None:
    """The two values that `x` joins along its last axis."""
    op = x.defining(llm.ConcatOp)
    if op is None or op.axis != last_axis(x) or len(op.parts) != 2:
        return None
    return op.parts[0], op.parts[1]
