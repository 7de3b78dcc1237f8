"""Issue loads early, so that data is there when the compute engine wants it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, NamedTuple

import numpy as np

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import DmaOp, GlobalOp, Instruction, LocalOp, TransferOp, WaitOp
from dialects.contents import Content
from passes.chip.allocate_local import require_room
from passes.chip.ddr import LastTouch, commands_on, is_store, stored_regions
from passes.chip.lives import Life, live_bytes, lives, shortest
from passes.chip.pace import Pace
from passes.chip.reorder import reorder
from passes.manager import Pass
from passes.options import ByFunction, by_function, option

AHEAD = 16  # loads, of which one may pass those before it


@dataclass(frozen=True)
class HoistLoads(Pass):
    """chip -> chip. Move each load up the program as far as local memory and what it reads allow.

    Bytes that the program itself stores are read behind their last store, and those of other cores behind
    the wait for them, which all other loads may pass. Loads keep their order, unless one is over before the
    DMA could go on otherwise, and let stores pass that are ready before them, unless compute would wait for
    the load meanwhile. A load that moves up keeps its buffer alive for longer, and a store until it is over;
    `fill` bounds the memory in use at any point, as a share of the lane, since buffers of many sizes never
    pack perfectly. What cannot fit even with all loads as late as they may be is refused here.
    """

    name: ClassVar[str] = "hoist-loads"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    changes = ()

    # share of local memory that live buffers may take
    fill: ByFunction[float] = by_function(option(0.85, "a number from 0 to 1", lambda share: 0 <= share <= 1))

    def run(self, module: Module) -> None:
        spec = target_of(module)
        for function in module.functions():
            hoist_loads(function, spec, int(self.fill[function.sym_name] * spec.lane_bytes))


def hoist_loads(function: Function, spec: ChipSpec, capacity: int) -> None:
    """Definitions of buffers, which no order binds, come first."""
    *ops, _ = function.block.ops.listed()
    found = lives(ops, spec)
    require_room(function, live_bytes(shortest(found), len(ops)), spec)
    places = load_places(ops, Room(found, len(ops), capacity), spec)

    def key(position: int) -> tuple[bool, int, bool]:
        return isinstance(ops[position], Instruction), places.get(position, position), position not in places

    reorder(function, key)


class Load(NamedTuple):
    """A load that may move."""

    position: int
    bytes: int  # that it makes live


class Room:
    """Bytes of local memory that are taken at each position of a program, of `capacity`."""

    def __init__(self, found: Sequence[Life], length: int, capacity: int) -> None:
        self.taken = live_bytes(found, length)
        self.capacity = capacity
        self._last = {life.op.buffer: life.last for life in found}  # position that each buffer has room at

    def highest_fit(self, start: int, stop: int, size: int) -> int:
        """The first position from `start` on from which there is room for `size` bytes up to `stop`."""
        if not size:
            return start
        full = np.flatnonzero(self.taken[start:stop] > self.capacity - size)
        return int(start + full[-1] + 1) if full.size else start

    def take(self, load: Load, place: int, sign: int = 1) -> None:
        """Room for a load that is issued in front of a position."""
        self.taken[place : load.position] += sign * load.bytes

    @contextmanager
    def kept(self, load: Load, place: int) -> Iterator[None]:
        """With that room taken."""
        self.take(load, place)
        yield
        self.take(load, place, -1)

    def can_hold(self, store: Op, stop: int, beside: int) -> bool:
        """Whether there is room for what is stored up to a position, beside so many more bytes."""
        most = self.capacity - beside
        return all((self.taken[part] <= most - size).all() for _, part, size in self._more(store, stop))

    def hold(self, store: Op, stop: int) -> None:
        """Take room for what is stored up to a position, where it is not over before."""
        for buffer, part, size in self._more(store, stop):
            self.taken[part] += size
            self._last[buffer] = stop

    def _more(self, store: Op, stop: int) -> Iterator[tuple[Value, slice, int]]:
        """The positions at which what is stored has no room yet, and its bytes."""
        for buffer in store.operands[1:]:
            last = self._last.get(buffer, stop)
            if last < stop:
                yield buffer, slice(last + 1, stop + 1), buffer.type.bytes


def load_places(ops: Sequence[Op], room: Room, spec: ChipSpec) -> dict[int, int]:
    """In front of which position each load goes; it takes its room from there on."""
    issuing = Issuing(ops, room, spec)
    while issuing.loads:
        issuing.go_on()
    return issuing.places


class Issuing:
    """Commands in the order that the DMA gets them in.

    It takes whichever can start first, the next load or the next of its other commands: a load must not hold
    up a result that is ready, nor wait behind one that is not. If both can start, a store waits for a load
    that compute would wait for otherwise, where there is room for what is stored until then. One that other
    cores wait for does not. Where neither can start, for lack of room or of what is read, later loads may
    that are over by then. Room is kept for those that they pass, and a bank of it for what is stored: that is
    seen to take its room for longer only when its store is issued.
    """

    def __init__(self, ops: Sequence[Op], room: Room, spec: ChipSpec) -> None:
        self.ops = ops
        self.room = room
        self.pace = Pace(ops, spec)
        self.loads, self.others = split_commands(ops)
        self.places: dict[int, int] = {}  # of the loads that are issued, by position
        self._ready = ready_places(ops, spec)
        self._earliest = 0  # the place of what is issued next
        self._spare = spec.bank_bytes  # left free by loads that pass others

    def go_on(self) -> None:
        """Issue a command."""
        load = self.loads[0]
        place = self._place(load)
        if passing := self._passing(place):
            self._issue(*passing)
        elif self.others and self._gives_way(load, place):
            self._issue_other()
        else:
            self._issue(load, place)

    def _place(self, load: Load, beside: int = 0) -> int:
        start = max(self._earliest, self._ready[load.position])
        return self.room.highest_fit(start, load.position, load.bytes + beside)

    def _passing(self, place: int) -> tuple[Load, int] | None:
        """A load that may pass those before it, and its place; that of the first of them is given."""
        starts = [self.pace.start(place), *(self.pace.start(other) for other in islice(self.others, 1))]
        if place <= self._earliest or min(starts) <= self.pace.dma_free:
            return None
        with ExitStack() as passed:
            buffers: set[Value] = set()
            for load in islice(self.loads, AHEAD):
                buffer, own = self.ops[load.position].operands[0], self._place(load, self._spare)
                if own < place and buffer not in buffers and self._is_over(load, own, min(starts)):
                    return load, own
                passed.enter_context(self.room.kept(load, own))
                buffers.add(buffer)
                place = min(place, own)
        return None

    def _is_over(self, load: Load, place: int, time: float) -> bool:
        return self.pace.start(place) + self.pace.cycles[load.position] <= time

    def _gives_way(self, load: Load, place: int) -> bool:
        """Whether the next of the other commands comes before a load."""
        other, pace = self.others[0], self.pace
        if (pace.start(other), other) >= (pace.start(place), load.position):
            return False
        is_urgent = pace.start(other) + pace.cycles[other] + pace.cycles[load.position] > pace.compute_free
        can_wait = place <= other and is_urgent and self._is_own_store(other)
        return not can_wait or not self.room.can_hold(self.ops[other], load.position, load.bytes)

    def _is_own_store(self, position: int) -> bool:
        op = self.ops[position]
        return is_store(op) and not is_shared(op.operands[0])

    def _issue(self, load: Load, place: int) -> None:
        self.loads.remove(load)
        self.room.take(load, place)
        self.places[load.position] = self._earliest = place
        self.pace.issue(load.position, place)

    def _issue_other(self) -> None:
        other = self.others.popleft()
        self.pace.issue(other, other)
        self.room.hold(self.ops[other], self.pace.position_at(self.pace.dma_free))
        self._earliest = max(self._earliest, other + 1)


def split_commands(ops: Sequence[Op]) -> tuple[deque[Load], deque[int]]:
    """The loads that may move, and the positions of all other commands.

    A load may that is the first to touch its buffer, or is only preceded there by such loads. One of what
    other cores store has its place behind the wait for them, where it would hold up the loads behind it.
    """
    awaited: set[Value] = set()  # since the last compute
    moving: dict[Value, bool] = {}  # of each local buffer: whether all so far are loads that may move
    loads, others = deque[Load](), deque[int]()
    for position, op in enumerate(ops):
        if is_load(op) and awaited.isdisjoint(op.operands) and moving.get(buffer := op.operands[0], True):
            loads.append(Load(position, 0 if buffer in moving else buffer.type.bytes))
            moving[buffer] = True
        elif isinstance(op, Instruction):
            if isinstance(op, WaitOp):
                awaited |= {value for value in op.awaited if is_shared(value)}
            elif not isinstance(op, DmaOp):
                awaited.clear()
            moving |= dict.fromkeys(op.operands, False)
            if isinstance(op, DmaOp):
                others.append(position)
    return loads, others


def is_shared(region: Value) -> bool:
    return isinstance(region.owner, GlobalOp) and region.owner.space == "shared"


def is_load(op: Op) -> bool:
    if not isinstance(op, TransferOp):
        return False
    target, *sources = (value.owner for value in op.operands)
    return isinstance(target, LocalOp) and all(isinstance(source, GlobalOp) for source in sources)


def ready_places(ops: Sequence[Op], spec: ChipSpec) -> dict[int, int]:
    """The first position of each command at which all that it reads of DDR is written."""
    touched = commands_on(stored_regions(ops), ops, spec)
    written = LastTouch(access for accesses in touched.values() for access in accesses)
    ready: dict[int, int] = defaultdict(int)
    for position, op in enumerate(ops):
        for access in touched.get(op, ()):
            if access.write:
                written.record(access, position)
            else:
                ready[position] = max(ready[position], written.newest(access) + 1)
    return ready
