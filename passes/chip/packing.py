"""Places in local memory, found in program order."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from compiler.ir.core import Value
from compiler.target.spec import ChipSpec
from passes.chip.banks import Banks
from passes.chip.lives import Life

BLOCK = 32  # positions; most lives are as short


class Held(NamedTuple):
    """Bytes [start, stop) that a life holds up to position `end` of the program."""

    start: int
    stop: int
    end: int
    life: int  # its number


class TakenRange(NamedTuple):
    """Bytes [start, stop) from position `first` of the program to `last`."""

    start: int
    stop: int
    first: int
    last: int


class Taken:
    """Ranges by blocks of positions, sorted by start in each: those that last into it, or begin in it."""

    def __init__(self) -> None:
        self._lasting: dict[int, list[TakenRange]] = defaultdict(list)
        self._begun: dict[int, list[TakenRange]] = defaultdict(list)

    def add(self, taken: TakenRange) -> None:
        insort(self._begun[taken.first // BLOCK], taken)
        for block in range(taken.first // BLOCK, taken.last // BLOCK + 1):
            insort(self._lasting[block], taken)

    def during(self, first: int, last: int) -> list[TakenRange]:
        """Those that are taken at some of these positions, sorted by start."""
        block = first // BLOCK
        found = [each for each in self._lasting[block] if each[2] <= last and each[3] >= first]
        if block == last // BLOCK:
            return found
        for later in range(block + 1, last // BLOCK + 1):
            found += [each for each in self._begun[later] if each[2] <= last]
        return sorted(found)


class Packing:
    """Loaded data goes to the high end of memory, the rest to the low end, in a bank that suits.

    Loads come and go in order and live long when hoisted; results are short-lived. Kept apart, neither leaves
    holes among the other. Where something finds no room, it takes that of a result whose store is not over,
    and then loads that nothing reads yet are issued later, the one read last first: as soon as there is room
    again, and at the latest in front of what reads it. What is `fixed` has its place from the beginning.
    """

    def __init__(
        self,
        found: Sequence[Life],
        stored: Mapping[Value, int],
        banks: Banks,
        spec: ChipSpec,
        fixed: Mapping[int, int],
    ) -> None:
        self.found = found
        self.stored = stored  # up to where each buffer is on its way to DDR
        self.banks = banks
        self.spec = spec
        self.places = {index: found[index].first for index in fixed}  # from which a life has its room
        self.starts = dict(fixed)
        self.failed = -1  # the life that found no room
        self._fixed = Taken()
        self._held: list[Held] = []  # by start
        self._next_end = 0  # no position before it frees anything
        self._waiting: list[tuple[int, int]] = []  # (due, life) of loads that are to be issued later
        self._agenda = [(life.first, index) for index, life in enumerate(found)]
        banks.placed.clear()
        for index, start in fixed.items():
            life = found[index]
            banks.placed[life.op.buffer] = start
            self._fixed.add(TakenRange(start, start + life.bytes, life.first, life.last))

    def run(self) -> bool:
        """Whether everything found a place."""
        heapify(self._agenda)
        while self._agenda:
            now, index = heappop(self._agenda)
            if index in self.starts:  # earlier than at the latest
                continue
            if self._expire(now):
                self._resume(now)
            if index not in self.starts and not self._make_room(index, now):
                self.failed = index
                return False
        return True

    def _expire(self, now: int) -> bool:
        """Whether anything that was alive no longer is."""
        if now <= self._next_end:
            return False
        before = len(self._held)
        self._held = [held for held in self._held if held.end >= now]
        self._next_end = min([held.end for held in self._held], default=now)
        return len(self._held) < before

    def _resume(self, now: int) -> None:
        while self._waiting and self._put(self._waiting[0][1], now):
            pass

    def _make_room(self, index: int, now: int) -> bool:
        """Put a life somewhere, or decide that it waits; False when neither can be."""
        while not self._put(index, now):
            if self._let_go(now):
                continue
            later = self._last_read(index, now)
            if later is None:
                return False
            self._postpone(later)
            if later == index:
                break
        return True

    def _put(self, index: int, now: int) -> bool:
        life = self.found[index]
        fixed = self._fixed.during(now, life.last)
        taken = sorted([*self._held, *fixed]) if fixed else self._held
        gaps = [*free_ranges(taken, life.bytes, self.spec)]
        if not gaps:
            return False
        buffer = life.op.buffer
        start = self.banks.best(buffer, starts(gaps, life, self.spec))
        end = max(life.last, self.stored.get(buffer, 0))
        insort(self._held, Held(start, start + life.bytes, end, index))
        self._next_end = min(self._next_end, end)
        self.starts[index], self.places[index] = start, now
        if (life.due, index) in self._waiting:
            self._waiting.remove((life.due, index))
        return True

    def _let_go(self, now: int) -> bool:
        """Give up the room of what is only still being stored, that which is over first."""
        over = [held for held in self._held if self.found[held.life].last < now]
        if over:
            self._held.remove(min(over, key=lambda held: held.end))
        return bool(over)

    def _last_read(self, life: int, now: int) -> int | None:
        """Of this life and those that hold room, the load that is read last, if any may be issued later."""
        held = [each.life for each in self._held if self.places[each.life] < now <= self.found[each.life].due]
        waiting = [life] if now < self.found[life].due else []
        return max(held + waiting, key=lambda each: self.found[each].due, default=None)

    def _postpone(self, index: int) -> None:
        self._held = [held for held in self._held if held.life != index]
        self.starts.pop(index, None)
        self.banks.placed.pop(self.found[index].op.buffer, None)
        due = self.found[index].due
        insort(self._waiting, (due, index))
        heappush(self._agenda, (due, index))


def starts(gaps: list[tuple[int, int]], life: Life, spec: ChipSpec) -> Iterator[int]:
    """Places for a buffer, from its end of memory on: the near end of each gap, then each bank in it."""
    bank = spec.bank_bytes
    if life.loads:
        for start, stop in reversed(gaps):
            last = stop - life.bytes
            yield from (last, *range(last // bank * bank, start - 1, -bank))
    else:
        for start, stop in gaps:
            yield from (start, *range(-(-start // bank) * bank, stop - life.bytes + 1, bank))


def free_ranges(taken: Iterable[Sequence[int]], size: int, spec: ChipSpec) -> Iterator[tuple[int, int]]:
    """The free ranges [start, stop) of at least `size` bytes; all are whole EU widths.

    `taken` begin with their start and stop; they are sorted by start, and may overlap.
    """
    end = 0
    for start, stop, _, _ in taken:
        if start - end >= size:
            yield end, start
        if stop > end:
            end = stop
    if spec.lane_bytes - end >= size:
        yield end, spec.lane_bytes
