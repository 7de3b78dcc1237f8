"""When each instruction runs: engines that work their queues in order and wait for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol, TypeAlias

from compiler.diagnostics import CompileError
from compiler.target.isa import Instruction, PerBody
from compiler.target.messages import message_of
from compiler.target.spec import ChipSpec
from compiler.target.timing.dma import DmaModel
from compiler.target.timing.tiu import TiuModel

Stream: TypeAlias = Sequence[Instruction]


class Streams(Protocol):
    """The queues of one core, end commands included or not."""

    @property
    def tiu(self) -> Stream: ...

    @property
    def dma(self) -> Stream: ...


@dataclass(frozen=True)
class Queues:
    """Those of one core, as they are."""

    tiu: Stream
    dma: Stream


@dataclass
class Track:
    """What one engine does: cycle at which each instruction of its queue starts and ends."""

    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The cycle at which the engine is done."""
        return self.end[-1] if self.end else 0

    @property
    def busy(self) -> int:
        """Cycles during which it works."""
        return sum(self.end) - sum(self.start)


@dataclass
class Timeline:
    """The schedule of one core."""

    tiu: Track
    dma: Track

    @property
    def total(self) -> int:
        return max(self.tiu.total, self.dma.total)

    @property
    def overlapped(self) -> int:
        """Cycles during which both engines work."""
        spans = [list(zip(track.start, track.end, strict=True)) for track in (self.tiu, self.dma)]
        return _common(*spans)


def cycles(instruction: Instruction, spec: ChipSpec, cautious: bool = False, banks: bool = False) -> int:
    """What one instruction takes once it has started.

    The plain figure is the vendor's estimate; the cautious one adds latency and time to begin, and `banks`
    what results in the bank of an operand cost; see `DmaModel` and `TiuModel`.
    """
    model = _models(spec, cautious, banks)[instruction.engine]
    return model.cycles(instruction.name, instruction.kind, instruction.fields)


def estimate(
    tiu: Stream,
    dma: Stream,
    spec: ChipSpec,
    cautious: bool = False,
    banks: bool = False,
) -> Timeline:
    """The schedule of one core's queues; CompileError when they wait for each other forever."""
    return estimate_cores([Queues(tiu, dma)], spec, cautious, banks)[0]


def estimate_cores(
    cores: Sequence[Streams], spec: ChipSpec, cautious: bool = False, banks: bool = False
) -> list[Timeline]:
    """The schedule of each core. In the cautious estimate only, cores wait for each other and share DDR."""
    models = _models(spec, cautious, banks)
    streams = [stream for core in cores for stream in (core.tiu, core.dma)]
    cost = PerBody(lambda i: models[i.engine].cycles(i.name, i.kind, i.fields))
    costs = [[*map(cost, stream)] for stream in streams]
    if cautious and len(cores) > 1:
        dma = DmaModel(spec, cautious)
        shares = [[dma.shared(i.name, i.kind, i.fields) for i in stream] for stream in streams]
        tracks = _Together(streams, costs, shares).run()
    else:
        tracks = _run(streams, costs)
    return [Timeline(*pair) for pair in zip(tracks[::2], tracks[1::2], strict=True)]


@cache
def _models(spec: ChipSpec, cautious: bool, banks: bool) -> dict[str, TiuModel | DmaModel]:
    return {"tiu": TiuModel(spec, cautious, banks), "dma": DmaModel(spec, cautious)}


def _run(streams: list[Stream], costs: list[list[int]]) -> list[Track]:
    """Each queue as far as its waits let it, round after round; q ^ 1 is the other queue of a core."""
    tracks = [Track() for _ in streams]
    moved = True
    while moved:
        moved = False
        for queue in range(len(streams)):
            moved |= _advance(queue, streams[queue], costs[queue], tracks)
    _check_ends(streams, tracks)
    return tracks


def _check_ends(streams: list[Stream], tracks: list[Track]) -> None:
    for stream, track in zip(streams, tracks, strict=True):
        if len(track.end) < len(stream):
            stuck = stream[len(track.end)]
            raise CompileError(f"{stuck.name}.{stuck.kind} number {len(track.end) + 1} waits forever")


def _advance(queue: int, stream: Stream, costs: list[int], tracks: list[Track]) -> bool:
    """Schedule what one queue can do now; whether that was anything."""
    starts, ends, other = tracks[queue].start, tracks[queue].end, tracks[queue ^ 1].end
    first, known = len(ends), len(other)
    now = ends[-1] if ends else 0
    for position in range(first, len(stream)):
        wait = stream[position].wait
        if wait > known:
            break
        if wait and other[wait - 1] > now:
            now = other[wait - 1]
        starts.append(now)
        now += costs[position]
        ends.append(now)
    return len(ends) > first


class _Together:
    """The queues of all cores as time goes on.

    Commands that want more of DDR together than there is all become slower by the same factor.
    """

    def __init__(self, streams: list[Stream], costs: list[list[int]], shares: list[list[float]]) -> None:
        self.streams, self.costs, self.shares = streams, costs, shares
        self.tracks = [Track() for _ in streams]
        self.now = 0.0
        self.left: dict[int, float] = {}  # cycles of what runs, by queue, with DDR for itself
        self.wants: dict[int, float] = {}  # parts of DDR that it takes then
        self.sent: Counter[tuple[int, int]] = Counter()  # by message and how often it was used before
        self.used: Counter[tuple[int, bool, int]] = Counter()  # by queue, whether to send, and message

    def run(self) -> list[Track]:
        while self._start_all():
            self._pass()
        _check_ends(self.streams, self.tracks)
        return self.tracks

    def _start_all(self) -> bool:
        """Start all that may start now; whether anything runs."""
        while any([self._start(queue) for queue in range(len(self.streams)) if queue not in self.left]):
            pass  # what takes no time is done, and others may have waited for it
        return bool(self.left)

    def _start(self, queue: int) -> bool:
        """Start the next instruction of a queue that rests, if it may."""
        track, stream = self.tracks[queue], self.streams[queue]
        position = len(track.end)
        if position == len(stream) or not self._may_start(queue, stream[position]):
            return False
        track.start.append(round(self.now))
        if cost := self.costs[queue][position]:
            self.left[queue], self.wants[queue] = cost, self.shares[queue][position] / cost
        else:
            track.end.append(round(self.now))
        return True

    def _may_start(self, queue: int, instruction: Instruction) -> bool:
        if instruction.wait > len(self.tracks[queue ^ 1].end):
            return False
        message = message_of(instruction)
        if message is None:
            return True
        use = queue, message.is_send, message.number
        meeting = message.number, self.used[use]
        if not message.is_send and self.sent[meeting] < message.members:
            return False
        self.used[use] += 1
        self.sent[meeting] += message.is_send
        return True

    def _pass(self) -> None:
        """Let time pass until the next instruction ends."""
        slower = max(1.0, sum(self.wants.values()))
        needs = {queue: left * (slower if self.wants[queue] else 1) for queue, left in self.left.items()}
        passed = min(needs.values())
        self.now += passed
        for queue, need in needs.items():
            if need <= passed:
                self.tracks[queue].end.append(round(self.now))
                del self.left[queue], self.wants[queue]
            else:
                self.left[queue] *= 1 - passed / need


def _common(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> int:
    """Cycles in both of two lists of intervals, each in order."""
    total = i = j = 0
    while i < len(one) and j < len(two):
        total += max(0, min(one[i][1], two[j][1]) - max(one[i][0], two[j][0]))
        if one[i][1] < two[j][1]:
            i += 1
        else:
            j += 1
    return total
