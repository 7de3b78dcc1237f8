"""Arrays in DDR whose tokens come in another order or number than they were stored in, loaded run by run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from compiler.ir.core import Value
from compiler.ir.types import ElementType
from dialects.tensor import Lanes, StoreOp
from passes.llm_to_tensor.steps import Steps, row_major
from passes.ranges import Range, consecutive
from passes.tensor.build import Build


@dataclass(frozen=True)
class Moved:
    """An array that is x, in DDR, seen along other axes; those of x are those of the steps."""

    build: Build
    x: Value
    steps: Steps

    @classmethod
    def of(cls, build: Build, x: Value) -> Moved:
        """An array as it lies."""
        steps = Steps.of(x.type.shape)
        return cls(build, build.reshape(x, steps.sizes, None), steps)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.steps.shape

    @property
    def element(self) -> ElementType:
        element: ElementType = self.x.type.element
        return element

    @property
    def axes(self) -> list[range]:
        """Those of x that each axis of the array is made of."""
        return self.steps.axes

    def permute(self, order: Sequence[int]) -> Moved:
        x = self.build.permute(self.x, self.steps.inner(order))
        return Moved(self.build, x, self.steps.permute(order))

    def slice(self, axis: int, part: Range) -> Moved:
        """Some items along an axis; of one that several of x make, whole steps of the first of them."""
        steps, starts = self.steps.slice(axis, part), [0] * len(self.steps.sizes)
        if self.axes[axis]:
            first = self.axes[axis][0]
            starts[first] = (steps.start - self.steps.start) // self.steps.strides[first]
        return Moved(self.build, self.build.slice(self.x, starts, steps.sizes), steps)

    def reshape(self, shape: Sequence[int]) -> Moved:
        """The same items in row-major order; axes of x are split as the shape needs it."""
        steps = self.steps.reshape(shape)
        return Moved(self.build, self.build.reshape(self.x, steps.sizes, None), steps)

    @property
    def is_scattered(self) -> bool:
        """Whether what follows each other in the array does so in DDR in pieces that are too short for it."""
        shape, strides = self.steps.sizes, self.steps.strides
        run = len(shape) - 1
        while run and strides[run - 1] == shape[run] * strides[run]:
            run -= 1
        return run > 0 and prod(shape[run:]) * self.element.bytes < self.build.spec.costs.short_row

    @property
    def piece(self) -> list[int]:
        """The axes of x whose items lie behind each other, as many as are read at once without loss."""
        shape, order = self.x.type.shape, self.steps.lying
        found = [order.pop()]
        while order and prod(shape[i] for i in found) * self.element.bytes < self.build.spec.costs.short_row:
            if self.steps.strides[order[-1]] != shape[found[-1]] * self.steps.strides[found[-1]]:
                break
            found.append(order.pop())
        return found

    def lane_axes(self, axis: int) -> tuple[list[int], list[int]]:
        """The axes of x that make that axis of the array: of rows of lanes, and within one; the latter are
        none where no axes are just that.
        """
        rows, over = [*self.axes[axis]], list[int]()
        while rows and prod(self.x.type.shape[i] for i in over) < self.build.spec.lanes:
            over.insert(0, rows.pop())
        whole = prod(self.x.type.shape[i] for i in over) == self.build.spec.lanes
        return (rows, over) if whole else ([*self.axes[axis]], [])

    def collected(self, axis: int, element: ElementType) -> Moved:
        """A copy in DDR in the array's own order, rounded to `element`: read as it lies, put in order in
        local memory, with the first axis of x that is part of that axis over the lanes, and stored again.
        """
        build, lead = self.build, self.axes[axis][0]
        order = self.steps.lying
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
        sizes = whole.type.shape
        return Moved(build, whole, Steps(sizes, self.steps.groups, row_major(sizes)))

    def rows(self, axis: int, part: Range) -> Value:
        """Some items along an axis, as they lie in DDR."""
        return self.build.reshape(self.slice(axis, part).x, self.shape_of(axis, part.size), None)

    def load(self, axis: int, part: Range) -> Value:
        """Some items along an axis, in local memory, with that axis over the lanes.

        An axis of several of x takes a command for each step of the outer ones.
        """
        build = self.build
        boxes = [
            build.reshape(build.load(x, Lanes(lead)), self.shape_of(axis, x.type.shape[lead]), Lanes(axis))
            for x, lead in self._boxes(axis, part)
        ]
        return build.concat(boxes, axis)

    def shape_of(self, axis: int, count: int) -> tuple[int, ...]:
        return tuple(count if i == axis else size for i, size in enumerate(self.shape))

    def _boxes(self, axis: int, part: Range) -> Iterator[tuple[Value, int]]:
        """Parts of x that are some items along an axis, in order, and the axis of x that these are on."""
        axes, shape = self.axes[axis], self.x.type.shape
        lead = sum(self.steps.groups[:axis])
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


@dataclass(frozen=True)
class Spread:
    """A scattered array whose rows of lanes along an axis are the last of the axes of x that make it.

    Each lane loads its share as it lies, in long pieces, and puts it in order, rounded to `element`.
    """

    source: Moved
    element: ElementType

    @property
    def build(self) -> Build:
        return self.source.build

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def load(self, axis: int, part: Range) -> Value:
        """As that of the array; single tokens in short pieces."""
        lanes = self.build.spec.lanes
        if part.start % lanes or part.stop % lanes:
            local = self.source.load(axis, part)
            return self.build.cast(local, self.element, Lanes(axis))
        loaded: dict[tuple[int, ...], Value] = {}
        rows = [self._row(axis, row, loaded) for row in range(part.start // lanes, part.stop // lanes)]
        return self.build.concat(rows, axis)

    def _row(self, axis: int, number: int, loaded: dict[tuple[int, ...], Value]) -> Value:
        """One row of lanes; loaded with those that lie in the same pieces."""
        build, source, order = self.build, self.source, self.source.steps.lying
        rows, over = source.lane_axes(axis)
        index = dict(zip(rows, unraveled(number, [source.steps.sizes[i] for i in rows]), strict=True))
        apart = {i: index[i] for i in rows if i not in source.piece}
        key = (*apart.values(),)
        if key not in loaded:
            loaded[key] = self._loaded(apart, over)
        whole = loaded[key]
        inside = {order.index(i): index[i] for i in rows if i not in apart}
        starts = [inside.get(i, 0) for i in range(len(order))]
        sizes = [1 if i in inside else size for i, size in enumerate(whole.type.shape)]
        turned = build.permute(build.slice(whole, starts, sizes), [order.index(i) for i in range(len(order))])
        one = rounded(build, turned, self.element)
        return build.reshape(one, source.shape_of(axis, build.spec.lanes), Lanes(axis))

    def _loaded(self, apart: Mapping[int, int], over: Sequence[int]) -> Value:
        """All that is at these places of some axes, with others over the lanes, as it lies."""
        build, order, sizes = self.build, self.source.steps.lying, self.source.steps.sizes
        *outer, lead = over
        x, parts = build.permute(self.source.x, order), []
        for numbers in product(*(range(sizes[i]) for i in outer)):
            at = {**apart, **dict(zip(outer, numbers, strict=True))}
            box = build.slice(x, [at.get(i, 0) for i in order], [1 if i in at else sizes[i] for i in order])
            parts.append(build.load(box, Lanes(order.index(lead))))
        return build.concat(parts, order.index(lead))


def unraveled(number: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The place of an item, from the first axis on."""
    found = []
    for size in reversed(sizes):
        number, place = divmod(number, size)
        found.append(place)
    return tuple(reversed(found))


@dataclass(frozen=True)
class Joined:
    """Arrays one after the other along the axis that is loaded, from item `first` on."""

    parts: tuple[Moved | Spread, ...]
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
