"""Where a tensor value lies: a buffer with a stride per axis, and the views that move no data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from compiler.ir.core import Value
from compiler.ir.types import ElementType, TensorType
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects.chip import GlobalType, View
from dialects.tensor import Lanes, axis_over_lanes

REMEMBERED = 8192  # results of functions of shapes, of which a program has few


class CannotView(Exception):
    """The positions asked for are not reachable with one stride per axis."""


class Form(NamedTuple):
    """What of an array decides on the instructions over it; see `Placed`."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    axis: int | None
    lane: int
    item_bits: int


@dataclass(frozen=True)
class Placed:
    """A tensor of `shape` in `buffer`.

    strides: elements per step of each axis; for `axis`, the one over the lanes, elements from one row of
    lanes to the next, and in DDR simply elements. offset: bytes, the same in all lanes; lane: where item 0 of
    `axis` sits. axis None: in DDR, or the same data in every lane.
    """

    buffer: Value
    dtype: ElementType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    axis: int | None
    lanes: int
    offset: int = 0
    lane: int = 0

    @property
    def in_ddr(self) -> bool:
        return isinstance(self.buffer.type, GlobalType)

    @property
    def form(self) -> Form:
        return Form(self.shape, self.strides, self.axis, self.lane, self.dtype.bits)

    @property
    def lane_rows(self) -> int:
        """How many rows of lanes the axis over the lanes takes."""
        return 1 if self.axis is None else -(-(self.lane + self.shape[self.axis]) // self.lanes)

    def slice(self, starts: Sequence[int], sizes: Sequence[int]) -> Placed:
        offset, lane = self.offset, self.lane
        for axis, start in enumerate(starts):
            if axis != self.axis:
                offset += start * self.strides[axis] * self.dtype.bytes
                continue
            rows, lane = divmod(self.lane + start, self.lanes)
            offset += rows * self.strides[axis] * self.dtype.bytes
        return self._seen(tuple(sizes), self.strides, self.axis, offset, lane)

    def permute(self, order: Sequence[int]) -> Placed:
        axis = None if self.axis is None else list(order).index(self.axis)
        shape, strides = (tuple([sizes[i] for i in order]) for sizes in (self.shape, self.strides))
        return self._seen(shape, strides, axis, self.offset, self.lane)

    def reshape(self, shape: Sequence[int], axis: int | None) -> Placed:
        """The same items in row-major order; `axis` is the one over the lanes in the new shape.

        Raises CannotView when an axis would have to be merged with one that does not follow it in memory, or
        when the axis over the lanes would be split or merged, or an axis would have to be spread over them.
        """
        spread = self.axis is not None and self.shape[self.axis] > 1
        if axis is not None and shape[axis] > 1 and not spread:
            raise CannotView(f"axis {axis} of {list(shape)} is not over the lanes")
        strides = [0] * len(shape)
        for old, new in matching_axes(self.shape, tuple(shape)):
            if self.axis in old and self.shape[self.axis] > 1:
                self._keep_lane_axis(old, new, tuple(shape), axis, strides)
            else:
                self._regroup(old, new, tuple(shape), strides)
        return self._seen(tuple(shape), tuple(strides), axis, self.offset, self.lane)

    def with_rows_beside(self) -> Placed | None:
        """[.., n, ..] as [.., rows, lanes, ..], with rows of lanes beside each other as other axes are; None
        where they are not whole.
        """
        if self.axis is None or self.lane or self.shape[self.axis] % self.lanes:
            return None
        i, stride = self.axis, self.strides[self.axis]
        shape = (*self.shape[:i], self.shape[i] // self.lanes, self.lanes, *self.shape[i + 1 :])
        strides = (*self.strides[:i], stride, *self.strides[i:])
        return self._seen(shape, strides, i + 1, self.offset, 0)

    def with_rows_joined(self) -> Placed:
        """What `with_rows_beside` was made of."""
        assert self.axis
        i = self.axis
        shape = (*self.shape[: i - 1], self.shape[i - 1] * self.shape[i], *self.shape[i + 1 :])
        strides = (*self.strides[: i - 1], *self.strides[i - 1 : i], *self.strides[i + 1 :])
        return self._seen(shape, strides, i - 1, self.offset, self.lane)

    def in_buffer(self, buffer: Value) -> Placed:
        """The same place in another buffer."""
        return Placed(
            buffer, self.dtype, self.shape, self.strides, self.axis, self.lanes, self.offset, self.lane
        )

    def _seen(
        self, shape: tuple[int, ...], strides: tuple[int, ...], axis: int | None, offset: int, lane: int
    ) -> Placed:
        """A view of the same buffer; `replace` takes three times as long, and there are many."""
        return Placed(self.buffer, self.dtype, shape, strides, axis, self.lanes, offset, lane)

    def _keep_lane_axis(
        self, old: list[int], new: list[int], shape: tuple[int, ...], axis: int | None, strides: list[int]
    ) -> None:
        assert self.axis is not None
        if (
            axis not in new
            or shape[axis] != self.shape[self.axis]
            or prod(shape[i] for i in new) != shape[axis]
        ):
            raise CannotView(f"{list(self.shape)} to {list(shape)} moves the axis over the lanes")
        strides[axis] = self.strides[self.axis]

    def _regroup(self, old: list[int], new: list[int], shape: tuple[int, ...], strides: list[int]) -> None:
        wide = [i for i in old if self.shape[i] > 1]
        if [self.shape[i] for i in wide] == [shape[i] for i in new if shape[i] > 1]:
            for source, target in zip(wide, (i for i in new if shape[i] > 1), strict=True):
                strides[target] = self.strides[source]
            return
        for outer, inner in itertools.pairwise(wide):
            if self.strides[outer] != self.shape[inner] * self.strides[inner]:
                raise CannotView(f"axes {outer} and {inner} of {list(self.shape)} do not follow each other")
        stride = self.strides[wide[-1]] if wide else 1
        for i in reversed(new):
            strides[i] = stride
            stride *= shape[i]

    def same_place(self, other: Placed) -> bool:
        """Whether both address the same bytes; strides of axes of size 1 do not matter."""
        strides = zip(self.shape, self.strides, other.strides, strict=True)
        return (self.buffer, self.offset, self.lane, self.shape) == (
            other.buffer,
            other.offset,
            other.lane,
            other.shape,
        ) and all(size == 1 or ours == theirs for size, ours, theirs in strides)

    def view(self, strides: tuple[int, ...], extra: int = 0) -> View:
        return _view(self.dtype, self.offset + extra, self.lane, strides)


@lru_cache(REMEMBERED)
def _view(dtype: ElementType, offset: int, lane: int, strides: tuple[int, ...]) -> View:
    """Operands that lie alike share their view."""
    return View(dtype, offset, lane, strides)


@lru_cache(REMEMBERED)
def matching_axes(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of both shapes that hold equally many items, in order."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        items_left = items_right = 1
        while True:
            if i < len(old) and (
                items_left < items_right or not left or (items_left == items_right and old[i] == 1)
            ):
                items_left *= old[i]
                left.append(i)
                i += 1
            elif j < len(new) and (items_right < items_left or not right or new[j] == 1):
                items_right *= new[j]
                right.append(j)
                j += 1
            else:
                break
        groups.append((left, right))
    return groups


@lru_cache(REMEMBERED)
def default_strides(type_: TensorType, spec: ChipSpec) -> tuple[int, ...]:
    """The strides of a fresh buffer of this type; see `tensor.Lanes`."""
    strides = [0] * len(type_.shape)
    axis = axis_over_lanes(type_)
    step = 1
    for i in reversed(range(len(type_.shape))):
        if i == axis:
            compact = isinstance(type_.layout, Lanes) and type_.layout.compact
            step = step if compact else round_up(step, spec.eu_items(type_.element.bytes))
        strides[i] = step
        step *= -(-type_.shape[i] // spec.lanes) if i == axis else type_.shape[i]
    return tuple(strides)


@lru_cache(REMEMBERED)
def buffer_bytes(type_: TensorType, spec: ChipSpec) -> int:
    """Bytes per lane of a fresh local buffer."""
    strides = default_strides(type_, spec)
    axis = axis_over_lanes(type_)
    sizes = [-(-n // spec.lanes) if i == axis else n for i, n in enumerate(type_.shape)]
    items = max((n * stride for n, stride in zip(sizes, strides, strict=True)), default=1)
    return round_up(items * type_.element.bytes, spec.eu_bytes)
