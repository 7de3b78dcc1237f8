"""Issue loads early, so that data is there when the compute engine wants it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

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


@dataclass(frozen=True)
class HoistLoads(Pass):
    """chip -> chip. Move each load up the program as far as local memory and what it reads allow.

    Bytes that the program itself stores are read behind their last store, and those of other cores behind
    the wait for them, which all other loads may pass. Loads keep their order, and let
    stores pass that are ready before them, unless compute would wait for the load meanwhile. A load that
    moves up keeps its buffer alive for longer, and a store until it is over; `fill` bounds the memory in use
    at any point, as a share of the lane, since buffers of many sizes never pack perfectly. What cannot fit
    even with all loads as late as they may be is refused here.
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


def load_places(ops: list[Op], room: Room, spec: ChipSpec) -> dict[int, int]:
    """In front of which position each load goes; it takes its room from there on.

    The DMA takes whichever can start first, the next load or the next of its other commands: a load must not
    hold up a result that is ready, nor wait behind one that is not. If both can start, a store waits for a
    load that compute would wait for otherwise, where there is room for what is stored until then. One that
    other cores wait for does not.
    """
    loads, others = split_commands(ops)
    ready = ready_places(ops, spec)
    pace = Pace(ops, spec)
    places: dict[int, int] = {}
    earliest = 0

    def can_wait(other: int, load: int, place: int, size: int) -> bool:
        is_urgent = pace.start(other) + pace.cycles[other] + pace.cycles[load] > pace.compute_free
        is_own = is_store(ops[other]) and not is_shared(ops[other].operands[0])
        return place <= other and is_own and is_urgent and room.can_hold(ops[other], load, size)

    for load, size in loads:
        place = room.highest_fit(max(earliest, ready[load]), load, size)
        while (
            others
            and (pace.start(others[0]), others[0]) < (pace.start(place), load)
            and not can_wait(others[0], load, place, size)
        ):
            other = others.popleft()
            pace.issue(other, other)
            room.hold(ops[other], pace.position_at(pace.dma_free))
            place = room.highest_fit(max(place, other + 1), load, size)
        room.taken[place:load] += size
        places[load] = earliest = place
        pace.issue(load, place)
    return places


def split_commands(ops: list[Op]) -> tuple[list[tuple[int, int]], deque[int]]:
    """The loads that may move, with the bytes that each makes live, and all other commands, by position.

    A load may that is the first to touch its buffer, or is only preceded there by such loads. One of what
    other cores store has its place behind the wait for them, where it would hold up the loads behind it.
    """
    awaited: set[Value] = set()  # since the last compute
    moving: dict[Value, bool] = {}  # of each local buffer: whether all so far are loads that may move
    loads, others = [], deque[int]()
    for position, op in enumerate(ops):
        if is_load(op) and awaited.isdisjoint(op.operands) and moving.get(buffer := op.operands[0], True):
            loads.append((position, 0 if buffer in moving else buffer.type.bytes))
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


def ready_places(ops: list[Op], spec: ChipSpec) -> dict[int, int]:
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
