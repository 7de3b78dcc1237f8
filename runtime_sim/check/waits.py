"""Prove that every two conflicting accesses of a program happen in a fixed order.

Two accesses conflict when they touch the same bytes, at least one writes, and they are on different queues.
On one queue order is given; between queues only waits give it. For each instruction a vector clock says how
many instructions of every other queue are complete before it starts. The instructions are visited in one
order that the waits permit; for each byte range the last reader and the last writer of each queue are
remembered. An instruction is safe when its clock covers those it conflicts with: a queue being in order, the
last stands for all. Which order is visited does not matter: a pair without one is found at its second.

Where several cores run a program, core 0 alone waits for the runtime, which writes the inputs before core 0
starts and reads the outputs when it is at its end: two more steps, on a queue of their own. And a message
must not be sent anew before all that wait for it have gone on: the C-model aborts then.

This shares nothing with the pass that inserts the waits. Ranges come from `ranges`, by byte, never too small.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.diagnostics import CompileError
from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array
from runtime_sim.check.ranges import Access, Box, accesses_of_all
from runtime_sim.launch.messages import Messages
from runtime_sim.launch.orders import alternating
from runtime_sim.launch.queues import CoreProgram, Deadlock, Meeting, Step, run_order
from runtime_sim.machine.errors import SimulationError

Clock = tuple[int, ...]  # completed instructions of each queue


@dataclass(frozen=True)
class Race:
    """Two instructions whose order nothing fixes, and the first bytes on which they meet."""

    first: Step
    second: Step
    place: str
    what: str  # "write and read", ...

    def __str__(self) -> str:
        return f"nothing orders {self.first} and {self.second}: {self.what} of {self.place}"


Range = tuple[int, int]  # bytes [start, end) of DDR, as the DMA addresses them


@dataclass(frozen=True)
class Moved:
    """What the runtime writes before core 0 starts, and reads when core 0 has come to its end."""

    inputs: tuple[Range, ...] = ()
    outputs: tuple[Range, ...] = ()


class Copy(Step):
    """A step of the runtime's."""

    def __str__(self) -> str:
        return f"the copy of {self.instruction.name}"


def prove_waits(cores: Sequence[CoreProgram], spec: ChipSpec, moved: Moved = Moved()) -> None:
    """CompileError naming the first pair without an order, or what waits for each other."""
    try:
        race = find_race(cores, spec, moved)
    except Deadlock as deadlock:
        raise CompileError(f"the program never ends: {deadlock}") from None
    if race:
        raise CompileError(
            str(race), notes=[f"{step}: {step.instruction}" for step in (race.first, race.second)]
        )
    try:
        check_uses(cores)
    except SimulationError as error:
        raise CompileError(str(error)) from None


def check_uses(cores: Sequence[CoreProgram]) -> None:
    """SimulationError when sends and waits of a message are not as many as they say, in whatever order."""
    messages = Messages()
    for step in run_order(cores, alternating()):
        messages.visit(step)
    messages.finish()


def find_race(cores: Sequence[CoreProgram], spec: ChipSpec, moved: Moved = Moved()) -> Race | None:
    """The first pair of conflicting accesses without an order; Deadlock when the program cannot end."""
    runtime = 2 * len(cores)  # its queue
    steps = list(run_order(cores, alternating()))
    found = accesses_of_all((step.instruction for step in steps), spec)
    if len(cores) > 1:
        steps = [_copy(runtime, 1, "inputs"), *steps, _copy(runtime, 2, "outputs")]
        found = [_accesses("inputs", moved.inputs, True), *found, _accesses("outputs", moved.outputs, False)]
    memories = _Memories(steps, found)
    meetings = _Meetings(steps)
    clocks = _Clocks(len(cores))
    for step, touched in zip(steps, found, strict=True):
        clock = clocks.start(step)
        if race := meetings.visit(step, clock) or memories.visit(step, touched, clock):
            return race
    return None


def _copy(queue: int, number: int, what: str) -> Step:
    return Copy(queue, number, Instruction(what, "copy", {}, 0))


def _accesses(what: str, ranges: Iterable[Range], write: bool) -> list[Access]:
    return [Access(what, write, False, [Box(0, 1, *each) for each in ranges])]


class _Meetings:
    """Who waits for each message, each time that it is used."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.waits: dict[Meeting, list[Step]] = defaultdict(list)
        for step in steps:
            if step.meeting and "wait" in step.instruction.kind:
                self.waits[step.meeting].append(step)

    def visit(self, step: Step, clock: Clock) -> Race | None:
        """A message sent anew while some may still wait for it."""
        if not step.meeting or "send" not in step.instruction.kind:
            return None
        message, used = step.meeting
        for wait in self.waits[message, used - 1]:
            if wait.number > clock[wait.queue]:
                return Race(wait, step, f"message {message}", "wait and send")
        return None


class _Clocks:
    """What is complete before each instruction starts. Behind the queues of the cores is the runtime's."""

    def __init__(self, cores: int) -> None:
        self.runtime = 2 * cores
        zero = (0,) * (self.runtime + 1)
        written = (*zero[:-1], 1)  # behind the runtime's first step
        self.history: list[list[Clock]] = [[written if queue < 2 else zero] for queue in range(len(zero))]
        self.meetings: dict[Meeting, Clock] = {}

    def start(self, step: Step) -> Clock:
        """The clock of a step; it must be visited after all it waits for."""
        known = [self.history[step.queue][-1]]
        if step.queue == self.runtime and step.number > 1:
            known += [self.history[0][-1], self.history[1][-1]]
        if dep := step.instruction.fields.get("cmd_id_dep", 0):
            known.append(self.history[step.queue ^ 1][dep])
        if step.meeting and "wait" in step.instruction.kind:
            known.append(self.meetings[step.meeting])
        clock = _latest(known)
        complete = (*clock[: step.queue], step.number, *clock[step.queue + 1 :])
        self.history[step.queue].append(complete)
        if step.meeting and "send" in step.instruction.kind:
            self.meetings[step.meeting] = _latest([self.meetings.get(step.meeting, complete), complete])
        return clock


def _latest(clocks: list[Clock]) -> Clock:
    return clocks[0] if len(clocks) == 1 else tuple(map(max, *clocks))


class _Memories:
    """Local memory of each core and the memory they share; only what two queues touch is looked at."""

    def __init__(self, steps: Sequence[Step], found: Sequence[list[Access]]) -> None:
        self.steps = {(step.queue, step.number): step for step in steps}
        self.queues = 1 + max((step.queue for step in steps), default=1)
        self.memories: dict[int | None, _Memory] = {}
        known: dict[int | None, dict[int, Access]] = {}  # each access once, by its id
        for step, touched in zip(steps, found, strict=True):
            for access in touched:
                known.setdefault(_place(step, access), {})[id(access)] = access
        for place, all_accesses in known.items():
            if place is not None or self.queues > 2:  # one core's DMA is alone in global memory
                self.memories[place] = _Memory(all_accesses.values(), self.queues)

    def visit(self, step: Step, touched: list[Access], clock: Clock) -> Race | None:
        places = [(self.memories.get(_place(step, access)), access) for access in touched]
        for memory, access in places:
            conflict = memory.conflict(step, access, clock) if memory else None
            if conflict:
                return self._race(step, access, conflict)
        for memory, access in places:
            if memory:
                memory.record(step, access)
        return None

    def _race(self, step: Step, access: Access, conflict: _Conflict) -> Race:
        first = self.steps[conflict.queue, conflict.number]
        what = f"{_verb(conflict.was_write)} and {_verb(access.write)}"
        return Race(first, step, _describe(conflict.box, access), what)


def _verb(write: bool) -> str:
    return "write" if write else "read"


def _describe(box: Box, access: Access) -> str:
    if not access.is_local:
        return f"{access.operand}, bytes {box.start:#x} to {box.end:#x} of DDR"
    return f"{access.operand}, lanes {box.lane} to {box.lane_end - 1}, bytes {box.start:#x} to {box.end:#x}"


def _place(step: Step, access: Access) -> int | None:
    """A core's local memory, or None for the memory that all cores share."""
    return step.core if access.is_local else None


@dataclass(frozen=True)
class _Conflict:
    queue: int
    number: int
    was_write: bool
    box: Box


class _Memory:
    """Last reader and last writer of each queue, for the cells between all ends of ranges that occur."""

    def __init__(self, accesses: Iterable[Access], queues: int) -> None:
        boxes = {box for access in accesses for box in access.boxes}
        self.lanes = sorted({end for box in boxes for end in (box.lane, box.lane_end)})
        self.bytes = sorted({end for box in boxes for end in (box.start, box.end)})
        shape = (queues, 2, max(len(self.lanes) - 1, 0), max(len(self.bytes) - 1, 0))
        self.last = np.zeros(shape, np.int32)  # number of the last [queue, read or write] of a cell
        self.cells: dict[Box, tuple[slice, slice]] = {}
        self.touched: dict[tuple[int, int], _Touched] = {}  # by the queue and the id of the access

    def _cells(self, box: Box) -> tuple[slice, slice]:
        cells = self.cells.get(box)
        if cells is None:
            lanes = slice(bisect_left(self.lanes, box.lane), bisect_left(self.lanes, box.lane_end))
            parts = slice(bisect_left(self.bytes, box.start), bisect_left(self.bytes, box.end))
            cells = self.cells[box] = (lanes, parts)
        return cells

    def conflict(self, step: Step, access: Access, clock: Clock) -> _Conflict | None:
        """The newest conflicting access of another queue that is not known to be complete."""
        if all(_newest(hull) <= clock[queue] for queue, hull in self._touched(step, access).hulls):
            return None
        kinds = _kinds(access)
        for box in access.boxes:
            lanes, parts = self._cells(box)
            for queue in range(len(self.last)):
                if queue == step.queue:
                    continue
                last = self.last[queue, kinds, lanes, parts]
                if last.size and last.max() > clock[queue]:
                    return self._locate(queue, last, kinds.start, box)
        return None

    def _locate(self, queue: int, last: Array, first_kind: int, box: Box) -> _Conflict:
        kind, lane, part = np.unravel_index(int(last.argmax()), last.shape)
        lanes, parts = self._cells(box)
        lane, part = lanes.start + int(lane), parts.start + int(part)
        met = Box(self.lanes[lane], self.lanes[lane + 1], self.bytes[part], self.bytes[part + 1])
        return _Conflict(queue, int(last.max()), bool(first_kind + int(kind)), met)

    def record(self, step: Step, access: Access) -> None:
        for cells in self._touched(step, access).cells:
            cells.fill(step.number)

    def _touched(self, step: Step, access: Access) -> _Touched:
        key = step.queue, id(access)
        found = self.touched.get(key)
        if found is None:
            found = self.touched[key] = self._find(step.queue, access)
        return found

    def _find(self, own: int, access: Access) -> _Touched:
        boxes = [self._cells(box) for box in access.boxes]
        lanes, parts = [_hull(slices) for slices in zip(*boxes, strict=True)] or [slice(0, 0)] * 2
        hulls = enumerate(self.last[:, _kinds(access), lanes, parts])
        cells = [self.last[(own, int(access.write), *box)] for box in boxes]
        return _Touched([(queue, hull) for queue, hull in hulls if queue != own and hull.size], cells)


def _newest(cells: Array) -> int:
    """Their largest number: `cells.max()` without its detour, which costs as much."""
    return int(np.maximum.reduce(cells, axis=None))


def _kinds(access: Access) -> slice:
    """What conflicts with it: reads and writes, or writes alone."""
    return slice(0, 2) if access.write else slice(1, 2)


def _hull(slices: Sequence[slice]) -> slice:
    return slice(min(each.start for each in slices), max(each.stop for each in slices))


@dataclass(frozen=True)
class _Touched:
    """Views of the cells of an access by a queue: for each other queue of all that lie between, if any, and
    for its own of each box.
    """

    hulls: list[tuple[int, Array]]
    cells: list[Array]
