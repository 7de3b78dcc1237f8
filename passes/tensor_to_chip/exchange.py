"""Meetings of the cores of a chip: what one stored to DDR, others load behind a message that all have sent.

An array goes through DDR as it lies in the lanes, in a region for each core that all know by its number; so
cores must send and receive the same arrays in the same order. They meet at the start as well, before a core
but the first reads an input, and at the end, before the first is done: it alone waits for the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from compiler.ir.core import Value
from compiler.ir.types import TensorType
from dialects import chip, tensor
from dialects.tensor import Lanes
from passes.ranges import even_ranges
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.cores import Meeting
from passes.tensor_to_chip.placed import Placed

LARGE_SHARE = 4  # of local memory, what takes more than one part in so many is sent row by row


def meet(low: Lowering, published: Sequence[Value], awaited: Sequence[Value]) -> None:
    """Send and wait at once."""
    message = low.cores.next_message()
    _send(low, message, published)
    _wait(low, message, awaited)


def _send(low: Lowering, message: int, published: Sequence[Value]) -> None:
    low.emit.add(chip.SendOp(*published, message=message, count=low.cores.part.cores))


def _wait(low: Lowering, message: int, awaited: Sequence[Value]) -> None:
    low.emit.add(chip.WaitOp(*awaited, message=message, count=low.cores.part.cores))


def meet_at_start(low: Lowering, inputs: Sequence[Placed]) -> None:
    """The first core starts when the inputs are there."""
    if low.cores.part.cores > 1:
        regions = [place.buffer for place in inputs]
        first = low.cores.part.core == 0
        meet(low, regions if first else (), () if first else regions)


def meet_at_end(low: Lowering, outputs: Sequence[Placed]) -> None:
    """What the first core does is done when all outputs are there."""
    if low.cores.part.cores > 1:
        meet(low, [place.buffer for place in outputs], ())


# ---- arrays ----


@lowers(tensor.SendOp)
def send(low: Lowering, op: tensor.SendOp) -> None:
    cores, x = low.cores, as_it_lies(low, op.x.type, low.get(op.x))
    type_ = TensorType(x.shape, x.dtype)
    regions = [shared(low, type_) for _ in range(cores.part.cores)]
    own = regions[cores.part.core]
    _store(low, low.row_major(own, type_), x)
    cores.open[op.sent] = meeting = Meeting(cores.next_message(), regions)
    _send(low, meeting.message, [own])


def _store(low: Lowering, target: Placed, x: Placed) -> None:
    """A row of lanes at a time where all take much room, of which what is next has that of those sent."""
    axis = x.axis or 0
    is_large = x.lane_rows * prod(x.shape[axis + 1 :]) * x.dtype.bytes > low.spec.lane_bytes // LARGE_SHARE
    for rows in even_ranges(x.shape[axis], x.lanes, 1 if is_large else x.lane_rows):
        starts, sizes = [0] * len(x.shape), list(x.shape)
        starts[axis], sizes[axis] = rows.start, rows.size
        low.emit.dma(target.slice(starts, sizes), x.slice(starts, sizes))


def shared(low: Lowering, type_: TensorType) -> Value:
    region = low.in_ddr(type_, space="shared", index=low.cores.regions).buffer
    low.cores.regions += 1
    return region


@lowers(tensor.ReceiveOp)
def receive(low: Lowering, op: tensor.ReceiveOp) -> None:
    """This core's own array is loaded again where others were sent since: local memory need not keep it."""
    meeting, number = low.cores.open.pop(op.sent), low.cores.part.core
    others = [region for core, region in enumerate(meeting.regions) if core != number]
    _wait(low, meeting.message, others)
    for core, (result, region) in enumerate(zip(op.arrays, meeting.regions, strict=True)):
        if not result.has_uses():
            continue
        if tensor.in_ddr(result.type):
            low.set(result, low.row_major(region, result.type))
        elif core == number and not low.cores.open and op.own in low.placed:
            low.set(result, low.get(op.own))
        else:
            low.set(result, loaded(low, result.type, region))


def loaded(low: Lowering, type_: TensorType, region: Value) -> Placed:
    place = low.emit.of_type(type_)
    x = as_it_lies(low, type_, place)
    low.emit.dma(x, low.row_major(region, TensorType(x.shape, x.dtype)))
    return place


def as_it_lies(low: Lowering, type_: TensorType, x: Placed) -> Placed:
    """A packed vector as [lanes, rows], a run in each lane; other arrays in their own order of axes."""
    if not tensor.is_vector(type_):
        return x
    assert x.axis is not None
    rows = Placed(x.buffer, x.dtype, (x.lanes, x.lane_rows), (0, x.strides[x.axis]), 0, x.lanes, x.offset)
    if rows.strides[1] == 1 and not x.offset % low.spec.eu_bytes:
        return rows
    return low.emit.cast(low.emit.new(rows.shape, x.dtype, Lanes(0)), rows)


@lowers(tensor.JoinOp)
def join(low: Lowering, op: tensor.JoinOp) -> None:
    """What could not be produced in its place is copied there."""
    whole, source = low.result(op), low.get(op.x)
    target = whole.slice(op.own_starts(), source.shape)
    if not target.same_place(source):
        low.emit.dma(target, source)
