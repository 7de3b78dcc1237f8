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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compiler.diagnostics import CompileError
from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array
from runtime_sim.check.ranges import Access, Box, Ranges, ranges_on
from runtime_sim.launch.messages import Messages
from runtime_sim.launch.orders import alternating
from runtime_sim.launch.queues import CoreProgram, Deadlock, Meeting, Step, run_order
from runtime_sim.machine.errors import SimulationError

Cells = tuple[slice, slice]  # of a box: on which lanes, and which bytes
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

    __slots__ = ()

    def __str__(self) -> str:
        return f"the copy of {self.instruction.name}"


def prove_waits(
    cores: Sequence[CoreProgram], spec: ChipSpec, moved: Moved = Moved(), ranges: Ranges | None = None
) -> None:
    """CompileError naming the first pair without an order, or what waits for each other."""
    try:
        steps = list(run_order(cores, alternating()))
    except Deadlock as deadlock:
        raise CompileError(f"the program never ends: {deadlock}") from None
    if race := _race_of(steps, len(cores), moved, ranges or ranges_on(spec)):
        raise CompileError(
            str(race), notes=[f"{step}: {step.instruction}" for step in (race.first, race.second)]
        )
    try:
        check_uses(steps)
    except SimulationError as error:
        raise CompileError(str(error)) from None


def check_uses(steps: Iterable[Step]) -> None:
    """SimulationError when sends and waits of a message are not as many as they say, in whatever order."""
    messages = Messages()
    for step in steps:
        messages.visit(step)
    messages.finish()


def find_race(cores: Sequence[CoreProgram], spec: ChipSpec, moved: Moved = Moved()) -> Race | None:
    """The first pair of conflicting accesses without an order; Deadlock when the program cannot end."""
    return _race_of(list(run_order(cores, alternating())), len(cores), moved, ranges_on(spec))


def _race_of(steps: Sequence[Step], cores: int, moved: Moved, ranges: Ranges) -> Race | None:
    found = [ranges(step.instruction) for step in steps]
    if cores > 1:
        runtime = 2 * cores  # its queue
        steps = [_copy(runtime, 1, "inputs"), *steps, _copy(runtime, 2, "outputs")]
        found = [_accesses("inputs", moved.inputs, True), *found, _accesses("outputs", moved.outputs, False)]
    memories = _Memories(steps, found)
    meetings = _Meetings(steps)
    clocks = _Clocks(cores)
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
        queue, number, instruction, meeting = step
        clock = self.history[queue][-1]
        if queue == self.runtime and number > 1:
            clock = _latest(clock, self.history[0][-1], self.history[1][-1])
        if wait := instruction.wait:
            clock = _latest(clock, self.history[queue ^ 1][wait])
        if meeting and "wait" in instruction.kind:
            clock = _latest(clock, self.meetings[meeting])
        complete = (*clock[:queue], number, *clock[queue + 1 :])
        self.history[queue].append(complete)
        if meeting and "send" in instruction.kind:
            self.meetings[meeting] = _latest(self.meetings.get(meeting, complete), complete)
        return clock


def _latest(*clocks: Clock) -> Clock:
    return tuple(map(max, *clocks))


class _Memories:
    """Local memory of each core and the memory they share; only what two queues touch is looked at."""

    def __init__(self, steps: Sequence[Step], found: Sequence[list[Access]]) -> None:
        self.steps = steps
        self.queues = 1 + max((step.queue for step in steps), default=1)
        self.memories: dict[int | None, _Memory] = {}
        self.touched: dict[tuple[int, int], _Touched] = {}  # by the queue and the id of the accesses
        distinct = {(step.core, id(touched)): touched for step, touched in zip(steps, found, strict=True)}
        known: dict[int | None, list[Access]] = defaultdict(list)
        for (core, _), touched in distinct.items():
            for access in touched:
                known[_place(core, access)].append(access)
        for place, all_accesses in known.items():
            if place is not None or self.queues > 2:  # one core's DMA is alone in global memory
                self.memories[place] = _Memory(all_accesses, self.queues)

    def visit(self, step: Step, touched: list[Access], clock: Clock) -> Race | None:
        key = step.queue, id(touched)
        found = self.touched.get(key)
        if found is None:
            found = self.touched[key] = self._find(step, touched)
        for queue, hull, memory, access in found.hulls:
            if _newest(hull) > clock[queue] and (conflict := memory.conflict(step.queue, access, clock)):
                return self._race(step, access, conflict)
        for cells in found.cells:
            cells.fill(step.number)
        return None

    def _find(self, step: Step, touched: list[Access]) -> _Touched:
        found = _Touched([], [])
        for access in touched:
            memory = self.memories.get(_place(step.core, access))
            if memory and access.boxes:
                memory.find(step.queue, access, found)
        return found

    def _race(self, step: Step, access: Access, conflict: _Conflict) -> Race:
        at = conflict.queue, conflict.number
        first = next(other for other in self.steps if (other.queue, other.number) == at)
        what = f"{_verb(conflict.was_write)} and {_verb(access.write)}"
        return Race(first, step, _describe(conflict.box, access), what)


def _verb(write: bool) -> str:
    return "write" if write else "read"


def _describe(box: Box, access: Access) -> str:
    if not access.is_local:
        return f"{access.operand}, bytes {box.start:#x} to {box.end:#x} of DDR"
    return f"{access.operand}, lanes {box.lane} to {box.lane_end - 1}, bytes {box.start:#x} to {box.end:#x}"


def _place(core: int, access: Access) -> int | None:
    """A core's local memory, or None for the memory that all cores share."""
    return core if access.is_local else None


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
        self.cells: dict[Box, Cells] = {}

    def _cells(self, box: Box) -> Cells:
        cells = self.cells.get(box)
        if cells is None:
            lanes = slice(bisect_left(self.lanes, box.lane), bisect_left(self.lanes, box.lane_end))
            parts = slice(bisect_left(self.bytes, box.start), bisect_left(self.bytes, box.end))
            cells = self.cells[box] = (lanes, parts)
        return cells

    def find(self, own: int, access: Access, found: _Touched) -> None:
        """Add what a queue touches by an access."""
        cells = [*map(self._cells, access.boxes)]
        lanes, parts = (_hull(each) for each in zip(*cells, strict=True))
        for queue, hull in enumerate(self.last[:, _kinds(access), lanes, parts]):
            if queue != own and hull.size:
                found.hulls.append((queue, hull, self, access))
        last = self.last[own, int(access.write)]
        for run in _runs(cells):
            found.cells.extend(_views(last, run))

    def conflict(self, own: int, access: Access, clock: Clock) -> _Conflict | None:
        """The newest conflicting access of another queue that is not known to be complete."""
        kinds = _kinds(access)
        for box in access.boxes:
            lanes, parts = self._cells(box)
            for queue in range(len(self.last)):
                if queue == own:
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


def _runs(cells: Iterable[Cells]) -> Iterator[list[Cells]]:
    """Cells of boxes that follow each other on the same lanes, all as wide and as far apart."""
    run: list[Cells] = []
    for each in cells:
        if run and not _goes_on(run, each):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _views(last: Array, run: Sequence[Cells]) -> Iterator[Array]:
    """The cells of a run, in few views."""
    (lanes, first), (_, end) = run[0], run[-1]
    width = first.stop - first.start
    if len(run) <= max(width, 1):
        yield from (last[each] for each in run)
        return
    step = run[1][1].start - first.start
    for i in range(first.start, first.stop):
        yield last[lanes, i : i + end.start - first.start + 1 : step]


def _goes_on(run: Sequence[Cells], cells: Cells) -> bool:
    (lanes, first), (_, last), (own_lanes, own) = run[0], run[-1], cells
    step = own.start - last.start
    alike = own_lanes == lanes and own.stop - own.start == first.stop - first.start
    return alike and step > 0 and (len(run) == 1 or step == run[1][1].start - first.start)


def _newest(cells: Array) -> int:
    """Their largest number: `cells.max()` without its detour, which costs as much."""
    return int(np.maximum.reduce(cells, axis=None))


def _kinds(access: Access) -> slice:
    """What conflicts with it: reads and writes, or writes alone."""
    return slice(0, 2) if access.write else slice(1, 2)


def _hull(slices: Sequence[slice]) -> slice:
    return slice(min([each.start for each in slices]), max([each.stop for each in slices]))


class _Touched(NamedTuple):
    """What could conflict with an instruction on a queue: of each other queue all cells between those that
    do. And where it leaves its number.
    """

    hulls: list[tuple[int, Array, _Memory, Access]]
    cells: list[Array]
