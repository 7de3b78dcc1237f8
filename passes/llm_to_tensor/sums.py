"""Sums over all cores: their terms wait in DDR until they are added where the sum is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from compiler.ir.core import Value
from compiler.ir.location import Location
from compiler.ir.types import ElementType, TensorType
from dialects import llm, tensor
from dialects.parts import place_of
from dialects.tensor import Lanes
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build
from passes.tensor_to_chip.placed import buffer_bytes

FETCHED_SHARE = 3  # of local memory, terms that are loaded ahead take one part in so many at most


@dataclass(frozen=True)
class Terms:
    """Arrays of one shape in f32, in the order of the parts, and how they lie in local memory; their sum is
    what the place `loc` in the model computes, wherever it is read.
    """

    arrays: Sequence[Value]
    layout: Lanes
    loc: Location

    def loaded(self, build: Build) -> Terms:
        arrays = [build.load(x, self.layout) if tensor.in_ddr(x.type) else x for x in self.arrays]
        return replace(self, arrays=arrays)

    def part(self, build: Build, axis: int, part: Range) -> Terms:
        """Some items along one axis."""
        return replace(self, arrays=[build.part(x, axis, part) for x in self.arrays])

    def total(self, build: Build) -> Value:
        """The sum; of terms in DDR, so many tokens at a time as take little room."""
        with placed(build, self.loc):
            parts = [total(build, part.loaded(build).arrays) for part in self.parts(build)]
            return build.concat(parts, self.layout.axis)

    def stored(self, build: Build, element: ElementType, layout: Lanes) -> Value:
        """The sum in DDR, rounded before."""
        parts = []
        with placed(build, self.loc):
            for part in self.parts(build):
                rounded = build.cast(total(build, part.loaded(build).arrays), element, layout)
                parts.append(build.add(tensor.StoreOp(rounded)))
            return build.concat(parts, self.layout.axis)

    def parts(self, build: Build) -> list[Terms]:
        """Some tokens of each; all where none are in DDR."""
        if not any(tensor.in_ddr(x.type) for x in self.arrays):
            return [self]
        axis, lanes, type_ = self.layout.axis, build.spec.lanes, self.arrays[0].type
        row = TensorType((*type_.shape[:axis], 1, *type_.shape[axis + 1 :]), type_.element)
        ranges = even_ranges(type_.shape[axis], lanes, build.spec.work_bytes // row.bytes)
        return [self.part(build, axis, part) for part in ranges]


@contextmanager
def placed(build: Build, loc: Location) -> Iterator[None]:
    """Ops that are added meanwhile belong to that place in the model."""
    before, build.loc = build.loc, loc
    try:
        yield
    finally:
        build.loc = before


def fetched(build: Build, op: llm.AllReduceOp, sent: Value, alone: bool) -> Terms:
    """What is read of the terms of all cores, which another run computes before; in local memory if they take
    little room there.
    """
    room = sent.type.parts * buffer_bytes(sender(sent).x.type, build.spec)
    if room > build.spec.lane_bytes // FETCHED_SHARE:
        return received(build, op, sent, alone=False)
    return received(build, op, sent, alone).loaded(build)


def received(build: Build, op: llm.AllReduceOp, sent: Value, alone: bool) -> Terms:
    """What is read of the terms of all cores. Those of many tokens are in DDR, but for this core's own where
    it is `alone` under way.
    """
    own, (number, _) = sender(sent).x, place_of(op, op.over)
    if tensor.is_vector(own.type):
        arrays = receive(build, sent, own.type)
    else:
        arrays = receive(build, sent, replace(own.type, layout=None))
        arrays[number] = own if alone else arrays[number]
    assert isinstance(own.type.layout, Lanes)
    return Terms(arrays, own.type.layout, op.loc).part(build, -1, columns_read(op))


def sender(sent: Value) -> tensor.SendOp:
    found = sent.defining(tensor.SendOp)
    assert found is not None
    return found


def receive(build: Build, sent: Value, type_: TensorType) -> list[Value]:
    """The arrays of all cores, each of this type."""
    return list(build.add_all(tensor.ReceiveOp(sent, types=[type_] * sent.type.parts)))


def columns_read(op: llm.AllReduceOp) -> Range:
    """Of its last axis."""
    read = read_of(op).defining(llm.SliceOp)
    return Range(read.start, read.stop) if read is not None else Range(0, op.y.type.shape[-1])


def read_of(op: llm.AllReduceOp) -> Value:
    """What is read of a sum: all of it, or some columns that alone are."""
    columns = [user.y for user in op.y.users if isinstance(user, llm.SliceOp) and is_columns(user)]
    return columns[0] if len(columns) == len(op.y.users) == 1 else op.y


def is_columns(op: llm.SliceOp) -> bool:
    return op.axis == op.x.type.rank - 1 and op.step == 1


def total(build: Build, terms: Sequence[Value]) -> Value:
    """The sum in the order of the terms, in whole slots, as it may be accumulated upon."""
    sum_ = terms[0]
    for term in terms[1:]:
        sum_ = build.binary(tensor.AddOp, sum_, term, compact=False)
    return sum_
