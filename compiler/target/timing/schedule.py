"""When each instruction runs: engines that work their queues in order and wait for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol, TypeAlias

from compiler.diagnostics import CompileError
from compiler.target.isa import Instruction
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
    return estimate_cores([_Pair(tiu, dma)], spec, cautious, banks)[0]


def estimate_cores(
    cores: Sequence[Streams], spec: ChipSpec, cautious: bool = False, banks: bool = False
) -> list[Timeline]:
    """The schedule of each core. Waiting for other cores takes time in the cautious estimate only."""
    models = _models(spec, cautious, banks)
    costs = [
        [models[engine].cycles(i.name, i.kind, i.fields) for i in stream]
        for core in cores
        for engine, stream in (("tiu", core.tiu), ("dma", core.dma))
    ]
    streams = [stream for core in cores for stream in (core.tiu, core.dma)]
    waits = _Messages() if cautious and len(cores) > 1 else None
    tracks = _run(streams, costs, waits)
    return [Timeline(*pair) for pair in zip(tracks[::2], tracks[1::2], strict=True)]


@dataclass(frozen=True)
class _Pair:
    tiu: Stream
    dma: Stream


@cache
def _models(spec: ChipSpec, cautious: bool, banks: bool) -> dict[str, TiuModel | DmaModel]:
    return {"tiu": TiuModel(spec, cautious, banks), "dma": DmaModel(spec, cautious)}


class _Messages:
    """When each message was sent. Every wait number n for a message meets the nth group of its senders."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int], list[int]] = {}
        self._used: Counter[tuple[int, str, int]] = Counter()

    def when(self, queue: int, instruction: Instruction, now: int) -> int | None:
        """The cycle at which a send or a wait is over; None while senders are missing."""
        kind = instruction.kind.removesuffix("_msg")
        message, senders = _message(instruction)
        used = queue, kind, message
        sent = self._sent.setdefault((message, self._used[used]), [])
        if kind == "wait" and len(sent) < senders:
            return None
        self._used[used] += 1
        if kind == "wait":
            return max([now, *sent])
        sent.append(now)
        return now


def _message(instruction: Instruction) -> tuple[int, int]:
    """The number of a message, and how many must send it before a wait ends."""
    if instruction.name == "sys":
        operand = instruction.fields["imm"]
        return operand & 0x7F, operand >> 16 & 0x7
    operand = instruction.fields["constant_value"]
    return operand & 0x7F, operand >> 8 & 0x7F


def _is_message(instruction: Instruction) -> bool:
    return instruction.kind in ("send", "wait", "send_msg", "wait_msg")


def _run(streams: list[Stream], costs: list[list[int]], messages: _Messages | None) -> list[Track]:
    """Each queue as far as its waits let it, round after round; q ^ 1 is the other queue of a core."""
    tracks = [Track() for _ in streams]
    moved = True
    while moved:
        moved = False
        for queue in range(len(streams)):
            moved |= _advance(queue, streams[queue], costs[queue], tracks, messages)
    for queue, track in enumerate(tracks):
        if len(track.end) < len(streams[queue]):
            stuck = streams[queue][len(track.end)]
            raise CompileError(f"{stuck.name}.{stuck.kind} number {len(track.end) + 1} waits forever")
    return tracks


def _advance(
    queue: int, stream: Stream, costs: list[int], tracks: list[Track], messages: _Messages | None
) -> bool:
    """Schedule what one queue can do now; whether that was anything."""
    starts, ends, other = tracks[queue].start, tracks[queue].end, tracks[queue ^ 1].end
    first, known = len(ends), len(other)
    now = ends[-1] if ends else 0
    for position in range(first, len(stream)):
        instruction = stream[position]
        wait = instruction.fields.get("cmd_id_dep", 0)
        if wait > known:
            break
        if wait and other[wait - 1] > now:
            now = other[wait - 1]
        end: int | None = now + costs[position]
        if messages and _is_message(instruction):
            end = messages.when(queue, instruction, now)
            if end is None:
                break
        assert end is not None
        starts.append(now)
        ends.append(end)
        now = end
    return len(ends) > first


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
