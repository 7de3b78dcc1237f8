"""Arrays in DDR seen along other axes: a stride for each of some axes leads to each item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from passes.ranges import Range, consecutive


class CannotMove(Exception):
    """The array has no place for each item that a stride for each of some axes leads to."""


@dataclass(frozen=True)
class Steps:
    """Where the items of an array lie that is another one, row-major, seen along other axes.

    sizes: of the axes that these are made of, all longer than 1; strides: items from one step of each to the
    next. groups: how many of them follow each other as each axis of the array, none as one of one item.
    start: where the first item is.
    """

    sizes: tuple[int, ...]
    groups: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 0

    @classmethod
    def of(cls, shape: Sequence[int]) -> Steps:
        """An array as it lies."""
        longer = tuple(size for size in shape if size > 1) or (1,)
        groups = tuple(int(size > 1) for size in shape)
        groups = groups if any(groups) else (*groups[:-1], 1)
        return cls(longer, groups, row_major(longer))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(self.sizes[i] for i in axes) for axes in self.axes)

    @property
    def axes(self) -> list[range]:
        """Those that each axis of the array is made of."""
        return [range(part.start, part.stop) for part in consecutive(self.groups)]

    @property
    def lying(self) -> list[int]:
        """Its axes from the longest strides to the shortest."""
        return sorted(range(len(self.strides)), key=lambda axis: -self.strides[axis])

    def inner(self, order: Sequence[int]) -> list[int]:
        """The order of its axes where those of the array are in that order."""
        axes = self.axes
        return [i for axis in order for i in axes[axis]]

    def permute(self, order: Sequence[int]) -> Steps:
        inner = self.inner(order)
        sizes, strides = (tuple(each[i] for i in inner) for each in (self.sizes, self.strides))
        return Steps(sizes, tuple(self.groups[i] for i in order), strides, self.start)

    def slice(self, axis: int, part: Range) -> Steps:
        """Some items along an axis; of one that several make, whole steps of the first of them."""
        if not self.axes[axis]:
            return self
        (first, *others), sizes = self.axes[axis], list(self.sizes)
        step = prod(sizes[i] for i in others)
        if part.start % step or part.stop % step:
            raise CannotMove(f"takes items {part.start}:{part.stop} of {step} and {step}")
        sizes[first] = part.size // step
        start = self.start + part.start // step * self.strides[first]
        return replace(self, sizes=tuple(sizes), start=start)

    def reshape(self, shape: Sequence[int]) -> Steps:
        """The same items in row-major order; axes are split as the shape needs it."""
        sizes, groups = finer(self.sizes, shape)
        return Steps(sizes, groups, tuple(split_strides(self.sizes, self.strides, sizes)), self.start)

    def offsets(self, axes: Sequence[int]) -> np.ndarray:
        """Where the items along some of its axes lie, in row-major order, from the first item on."""
        found = np.zeros(1, int)
        for i in axes:
            found = np.add.outer(found, np.arange(self.sizes[i]) * self.strides[i]).reshape(-1)
        return found


def row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


def split_strides(sizes: Sequence[int], strides: Sequence[int], finer: Sequence[int]) -> Iterator[int]:
    """The strides of the axes that some are split into."""
    left = list(reversed(finer))
    for size, stride in zip(sizes, strides, strict=True):
        while size > 1:
            size //= left.pop()
            yield stride * size


def finer(sizes: Sequence[int], shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes that split those of some axes so that each axis of a shape of as many items is some of them, and
    how many.
    """
    found: list[int] = []
    groups: list[int] = []
    left = list(reversed(sizes))
    for size in shape:
        before = len(found)
        while size > 1:
            axis = left.pop()
            step = min(axis, size)
            if axis % step or size % step:
                raise CannotMove(f"takes axes of {axis} items in steps of {size}")
            found.append(step)
            size //= step
            if axis > step:
                left.append(axis // step)
        groups.append(len(found) - before)
    return (tuple(found), tuple(groups)) if found else ((1,), (*groups[:-1], 1))
