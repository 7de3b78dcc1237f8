"""Tensors that a model makes without contents and then fills part by part, which is to join the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from compiler.ir.core import Value
from dialects import llm
from frontend.aten import Emitter, expand, handles, require, slice_of, slice_scatter, value_of


@dataclass(frozen=True)
class Unwritten:
    """A tensor of `shape`, of which the parts [start, stop) along one axis are known, in order."""

    shape: tuple[int, ...]
    axis: int = 0
    parts: tuple[tuple[int, int, Value], ...] = ()

    def range(self, dim: int, start: int | None, end: int | None) -> tuple[int, int, int]:
        """The axis and bounds that a slice names."""
        axis = dim % len(self.shape)
        first, last, _ = slice(start, end).indices(self.shape[axis])
        return axis, first, last

    def part(self, axis: int, first: int, last: int) -> Any:
        """A slice; what is known of it only if it is a whole part."""
        if last - first == self.shape[axis]:
            return self
        known = {(start, stop): value for start, stop, value in self.parts if axis == self.axis}
        shape = (*self.shape[:axis], last - first, *self.shape[axis + 1 :])
        return known.get((first, last), Unwritten(shape))

    def with_part(self, emit: Emitter, axis: int, first: int, last: int, value: Value) -> Any:
        """All of it where no part is missing any more."""
        require(not self.parts or axis == self.axis, "parts are written along several axes")
        kept = [part for part in self.parts if part[1] <= first or part[0] >= last]
        require(len(kept) == len(self.parts), "a part is written twice")
        parts = sorted([*kept, (first, last, value)], key=lambda part: part[0])
        if sum(stop - start for start, stop, _ in parts) < self.shape[axis]:
            return replace(self, axis=axis, parts=tuple(parts))
        return emit(llm.ConcatOp, tuple(value for _, _, value in parts), axis=axis)


@handles("aten.new_empty")
def new_empty(emit: Emitter, self: Value, size: Sequence[int], **_storage: Any) -> Unwritten:
    return Unwritten(tuple(size))


@handles("aten.copy")
def copy(emit: Emitter, self: Value | Unwritten, src: Any, non_blocking: bool = False) -> Value:
    shape = self.shape if isinstance(self, Unwritten) else self.type.shape
    return expand(emit, value_of(src), shape)


@handles("aten.slice")
def slice_or_part(
    emit: Emitter,
    self: Value | Unwritten,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    if isinstance(self, Value):
        return slice_of(emit, self, dim, start, end, step)
    require(step == 1, "a part with a step")
    return self.part(*self.range(dim, start, end))


@handles("aten.slice_scatter")
def write_part(
    emit: Emitter,
    self: Value | Unwritten,
    src: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    if isinstance(self, Value):
        return slice_scatter(emit, self, value_of(src), dim, start, end, step)
    require(step == 1, "a write with a step")
    axis, first, last = self.range(dim, start, end)
    if last - first == self.shape[axis]:
        return src
    return self.with_part(emit, axis, first, last, value_of(src))


TAKES_UNWRITTEN = frozenset({"aten.copy", "aten.slice", "aten.slice_scatter"})
