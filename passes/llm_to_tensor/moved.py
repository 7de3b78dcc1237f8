"""Arrays in DDR whose tokens come in another order or number than they were stored in, loaded run by run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from compiler.ir.core import Value
from compiler.ir.types import ElementType
from dialects.tensor import Lanes, StoreOp
from passes.ranges import Range, consecutive
from passes.tensor.build import Build


class CannotMove(Exception):
    """The array has no place for each item that a stride for each of some axes leads to."""


@dataclass(frozen=True)
class Moved:
    """An array that is x, in DDR, seen along other axes.

    groups: how many axes of x, all longer than 1, follow each other as each axis of the array; none as one of
    one item. places: of each axis of x, by which these are sorted from the longest to the shortest strides.
    """

    build: Build
    x: Value
    groups: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, build: Build, x: Value) -> Moved:
        """An array as it lies."""
        shape = x.type.shape
        longer = tuple(size for size in shape if size > 1) or (1,)
        groups = tuple(int(size > 1) for size in shape)
        groups = groups if any(groups) else (*groups[:-1], 1)
        places = tuple((axis,) for axis in range(len(longer)))
        return cls(build, build.reshape(x, longer, None), groups, places)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(self.x.type.shape[i] for i in axes) for axes in self.axes)

    @property
    def element(self) -> ElementType:
        element: ElementType = self.x.type.element
        return element

    @property
    def axes(self) -> list[range]:
        """Those of x that each axis of the array is made of."""
        return [range(part.start, part.stop) for part in consecutive(self.groups)]

    def permute(self, order: Sequence[int]) -> Moved:
        axes = self.axes
        inner = [i for axis in order for i in axes[axis]]
        places = tuple(self.places[i] for i in inner)
        return Moved(
            self.build, self.build.permute(self.x, inner), tuple(self.groups[i] for i in order), places
        )

    def slice(self, axis: int, part: Range) -> Moved:
        """Some items along an axis; of one that several of x make, whole steps of the first of them."""
        axes, shape = self.axes[axis], self.x.type.shape
        if not axes:
            return self
        step = prod(shape[i] for i in axes[1:])
        if part.start % step or part.stop % step:
            raise CannotMove(f"takes items {part.start}:{part.stop} of {step} and {step}")
        starts, sizes = [0] * len(shape), list(shape)
        starts[axes[0]], sizes[axes[0]] = part.start // step, part.size // step
        return replace(self, x=self.build.slice(self.x, starts, sizes))

    def reshape(self, shape: Sequence[int]) -> Moved:
        """The same items in row-major order; axes of x are split as the shape needs it."""
        sizes, groups = finer(self.x.type.shape, shape)
        places = tuple(split_places(self.x.type.shape, self.places, sizes))
        return Moved(self.build, self.build.reshape(self.x, sizes, None), groups, places)

    @property
    def is_scattered(self) -> bool:
        """Whether what follows each other in the array does so in DDR in pieces that are too short for it."""
        run = len(self.places) - 1
        while run and self._follows(run):
            run -= 1
        piece = prod(self.x.type.shape[run:]) * self.element.bytes
        return run > 0 and piece < self.build.spec.costs.short_row

    def _follows(self, axis: int) -> bool:
        """Whether an axis of x is the one behind the one before, as they lie in DDR."""
        order = sorted(self.places)
        return order.index(self.places[axis]) == order.index(self.places[axis - 1]) + 1

    def collected(self, axis: int, element: ElementType) -> Moved:
        """A copy in DDR in the array's own order, rounded to `element`: read as it lies, put in order in
        local memory, with the first axis of x that is part of that axis over the lanes, and stored again.
        """
        build, lead = self.build, self.axes[axis][0]
        order = sorted(range(len(self.places)), key=self.places.__getitem__)
        back = [order.index(i) for i in range(len(order))]
        source = build.permute(self.x, order)
        outer = next(i for i in order if i != lead)  # one step of which is in local memory at a time
        steps = []
        for step in range(self.x.type.shape[outer]):
            starts, sizes = [0] * len(order), list(source.type.shape)
            starts[back[outer]], sizes[back[outer]] = step, 1
            local = build.load(build.slice(source, starts, sizes), Lanes(back[lead]))
            turned = build.permute(local, back)
            steps.append(build.add(StoreOp(rounded(build, turned, element))))
        whole = build.concat(steps, outer)
        places = tuple((i,) for i in range(len(order)))
        return Moved(build, whole, self.groups, places)

    def rows(self, axis: int, part: Range) -> Value:
        """Some items along an axis, as they lie in DDR."""
        return self.build.reshape(self.slice(axis, part).x, self._shape(axis, part.size), None)

    def load(self, axis: int, part: Range) -> Value:
        """Some items along an axis, in local memory, with that axis over the lanes.

        An axis of several of x takes a command for each step of the outer ones.
        """
        build = self.build
        boxes = [
            build.reshape(build.load(box, Lanes(lead)), self._shape(axis, box.type.shape[lead]), Lanes(axis))
            for box, lead in self._boxes(axis, part)
        ]
        return build.concat(boxes, axis)

    def _shape(self, axis: int, count: int) -> tuple[int, ...]:
        return tuple(count if i == axis else size for i, size in enumerate(self.shape))

    def _boxes(self, axis: int, part: Range) -> Iterator[tuple[Value, int]]:
        """Parts of x that are some items along an axis, in order, and the axis of x that these are on."""
        axes, shape = self.axes[axis], self.x.type.shape
        lead = sum(self.groups[:axis])
        *outer, last = (shape[i] for i in axes) if axes else (1,)
        for number, index in enumerate(product(*map(range, outer))):
            some = part.moved(-number * last).within(Range(0, last))
            if some.size:
                starts, sizes = [0] * len(shape), list(shape)
                for i, start in zip(axes, (*index, some.start), strict=False):
                    starts[i], sizes[i] = start, 1
                if axes:
                    sizes[axes[-1]] = some.size
                box = self.build.slice(self.x, starts, sizes)
                behind = shape[lead + len(axes) :]
                yield self.build.reshape(box, (*shape[:lead], some.size, *behind), None), lead


def rounded(build: Build, x: Value, element: ElementType) -> Value:
    """A copy in the strides of its own shape."""
    return build.copy(x) if x.type.element == element else build.cast(x, element, x.type.layout)


def split_places(
    sizes: Sequence[int], places: Sequence[tuple[int, ...]], finer: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """The places of the axes that some are split into."""
    left = list(reversed(finer))
    for size, place in zip(sizes, places, strict=True):
        number = 0
        while size > 1:
            size //= left.pop()
            yield (*place, number)
            number += 1


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


@dataclass(frozen=True)
class Joined:
    """Arrays one after the other along the axis that is loaded, from item `first` on."""

    parts: tuple[Moved, ...]
    first: int = 0

    def slice(self, axis: int, part: Range) -> Joined:
        """Of the axis that they are joined along."""
        return replace(self, first=self.first + part.start)

    def load(self, axis: int, part: Range) -> Value:
        part = part.moved(self.first)
        sizes = [each.shape[axis] for each in self.parts]
        found = [
            each.load(axis, part.within(place).moved(-place.start))
            for each, place in zip(self.parts, consecutive(sizes), strict=True)
            if part.within(place).size
        ]
        return self.parts[0].build.concat(found, axis)
