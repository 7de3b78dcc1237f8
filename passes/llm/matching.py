"""Small questions that patterns ask of values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from compiler.ir.core import Op, Value
from compiler.ir.rewrite import Rewriter
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
    """Elements start, start + step, ... before stop of the last axis of a value, its other axes as `lead`."""

    of: Value
    lead: tuple[int, ...]
    start: int
    stop: int
    step: int = 1

    def part(self, start: int, stop: int, step: int = 1) -> Region:
        """Elements of the same value, counted from where this region starts."""
        return replace(self, start=self.start + start, stop=self.start + stop, step=step)

    def reaches(self, stop: int) -> Region:
        """All elements from where this region starts up to `stop` of the value."""
        return replace(self, stop=stop, step=1)

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.lead, len(range(self.start, self.stop, self.step))

    @property
    def width(self) -> int:
        return self.shape[-1]


def region(x: Value) -> Region:
    """What `x` is a slice of, maybe with its other axes reshaped; all of itself if it is none."""
    reshape = x.defining(llm.ReshapeOp)
    source = reshape.x if reshape and reshape.x.type.shape[-1:] == x.type.shape[-1:] else x
    lead, op = x.type.shape[:-1], source.defining(llm.SliceOp)
    if op is None or op.axis != last_axis(source):
        return Region(source, lead, 0, source.type.shape[-1])
    return Region(op.x, lead, op.start, range(op.start, op.stop, op.step)[-1] + 1, op.step)


def value_of(part: Region, anchor: Op, rw: Rewriter) -> Value:
    """A contiguous region as a value, made before the anchor where it is not all of one."""
    x, axis = part.of, last_axis(part.of)
    if part.width != x.type.shape[axis]:
        cut = llm.SliceOp(x, axis=axis, start=part.start, stop=part.stop, loc=anchor.loc)
        x = rw.insert_before(anchor, cut).y
    if part.shape != x.type.shape:
        x = rw.insert_before(anchor, llm.ReshapeOp(x, shape=part.shape, loc=anchor.loc)).y
    return x


def concat_parts(x: Value) -> tuple[Value, Value] | None:
    """The two values that `x` joins along its last axis."""
    op = x.defining(llm.ConcatOp)
    if op is None or op.axis != last_axis(x) or len(op.parts) != 2:
        return None
    return op.parts[0], op.parts[1]
