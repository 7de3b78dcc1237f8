"""Issue loads early, so that data is there when the compute engine wants it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import DmaOp, GlobalOp, Instruction, LocalOp
from dialects.contents import Content
from passes.chip.allocate_local import lives, require_room
from passes.chip.pace import Pace
from passes.manager import Pass
from passes.options import option


@dataclass(frozen=True)
class HoistLoads(Pass):
    """chip -> chip. Move each load of weights or inputs up the program as far as local memory allows.

    Loads keep their order, and let stores pass that are ready before them. A load that moves up keeps its
    buffer alive for longer; `fill` bounds the memory in use at any point, as a share of the lane, since
    buffers of many sizes never pack perfectly. What cannot fit even unmoved is refused here.
    """

    name: ClassVar[str] = "hoist-loads"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED

    # share of local memory that live buffers may take
    fill: float = option(0.85, "a number from 0 to 1", lambda share: 0 <= share <= 1)

    def run(self, module: Module) -> None:
        spec = target_of(module)
        for function in module.functions():
            hoist_loads(function, spec, int(self.fill * spec.lane_bytes))


def hoist_loads(function: Function, spec: ChipSpec, capacity: int) -> None:
    *ops, _ = list(function.block.ops)
    live = live_bytes(function, len(ops))
    require_room(function, live, spec)
    places = load_places(ops, live, spec, capacity)
    order = [(places[i], False, i) if i in places else (i, True, i) for i in range(len(ops))]
    reorder(function, [ops[position] for _, _, position in sorted(order)])


def load_places(ops: list[Op], live: np.ndarray, spec: ChipSpec, capacity: int) -> dict[int, int]:
    """In front of which position each load goes. What is loaded is added to `live`, bytes at each position.

    The DMA takes whichever can start first, the next load or the next of its other commands: a load must not
    hold up a result that is ready, nor wait behind one that is not.
    """
    loads, others = split_commands(ops)
    ready = ready_places(ops)
    pace, end = Pace(ops, spec), len(ops)
    places: dict[int, int] = {}
    earliest = 0
    while loads or others:
        load, other = (queue[0] if queue else end for queue in (loads, others))
        size = ops[load].operands[0].type.bytes if loads else 0
        first = max(earliest, ready[load]) if loads else end
        place = highest_fit(live, first, load, capacity - size) if loads else end
        if (pace.start(other), other) < (pace.start(place), load):
            earliest = other + 1
            pace.issue(others.popleft(), other)
        else:
            live[place:load] += size
            places[load] = earliest = place
            pace.issue(loads.popleft(), place)
    return places


def split_commands(ops: list[Op]) -> tuple[deque[int], deque[int]]:
    """Positions of the loads that may move, and of all other commands."""
    first_use = first_uses(ops)
    loads, others = deque[int](), deque[int]()
    for position, op in enumerate(ops):
        if isinstance(op, DmaOp):
            moves = first_use.get(op.operands[0]) is op and reads_ddr(op)
            (loads if moves else others).append(position)
    return loads, others


def live_bytes(function: Function, length: int) -> np.ndarray:
    """Bytes of the buffers alive at each position of the program."""
    change = np.zeros(length + 1, np.int64)
    for life in lives(function):
        change[life.first] += life.bytes
        change[life.last + 1] -= life.bytes
    return np.cumsum(change[:-1])


def first_uses(ops: list[Op]) -> dict[Value, Op]:
    """The first instruction that touches each local buffer."""
    found: dict[Value, Op] = {}
    for op in ops:
        if isinstance(op, Instruction):
            for value in op.operands:
                if isinstance(value.owner, LocalOp):
                    found.setdefault(value, op)
    return found


def reads_ddr(op: DmaOp) -> bool:
    """Whether all it reads is weights and inputs, or, beside weights, what the program wrote before."""
    owners = [value.owner for value in op.operands[1:]]
    spaces = [owner.space for owner in owners if isinstance(owner, GlobalOp)]
    return len(spaces) == len(owners) and spaces[0] in ("weight", "input") and "output" not in spaces


def ready_places(ops: list[Op]) -> dict[int, int]:
    """The first position of each command at which everything it reads from DDR is written."""
    written: dict[Value, int] = {}
    found = {}
    for position, op in enumerate(ops):
        if isinstance(op, DmaOp):
            found[position] = max((written.get(value, 0) for value in op.operands[1:]), default=0)
            written[op.operands[0]] = position + 1
    return found


def highest_fit(live: np.ndarray, start: int, stop: int, room: int) -> int:
    """The first position from `start` on from which all up to `stop` leave enough room."""
    full = np.flatnonzero(live[start:stop] > room)
    return int(start + full[-1] + 1) if full.size else start


def reorder(function: Function, ops: list[Op]) -> None:
    """Put the ops into this order; definitions of buffers, which no order binds, come first."""
    terminator = function.terminator
    for op in ops:
        op.detach()
    for op in sorted(ops, key=lambda op: isinstance(op, Instruction)):
        function.block.insert_before(terminator, op)
