"""Cutting an axis into parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Items [start, stop) of an axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def moved(self, by: int) -> Range:
        return Range(self.start + by, self.stop + by)

    def within(self, other: Range) -> Range:
        """What both have; of no items where they have none in common."""
        start = max(self.start, other.start)
        return Range(start, max(start, min(self.stop, other.stop)))


def even_parts(whole: Range, unit: int, most: int) -> Iterator[Range]:
    """As `even_ranges`, of a part of an axis, which may be empty."""
    if whole.size:
        yield from (part.moved(whole.start) for part in even_ranges(whole.size, unit, most))


def consecutive(sizes: Sequence[int]) -> Iterator[Range]:
    """Ranges of these sizes, one after the other."""
    bounds = itertools.accumulate(sizes, initial=0)
    for start, stop in itertools.pairwise(bounds):
        yield Range(start, stop)


def even_ranges(total: int, unit: int, most: int) -> Iterator[Range]:
    """Cover `total` with the fewest ranges of at most `most` units, as equal as whole units allow."""
    units = -(-total // unit)
    count = -(-units // max(1, most))
    bounds = [min(total, units * i // count * unit) for i in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield Range(start, stop)


def falling_ranges(total: int, unit: int, most: int) -> Iterator[Range]:
    """As `even_ranges`, the larger ones first."""
    units = -(-total // unit)
    count = -(-units // max(1, most))
    least, larger = divmod(units, count)
    sizes = [least + (number < larger) for number in range(count)]
    for part in consecutive(sizes):
        yield Range(part.start * unit, min(total, part.stop * unit))
