"""Cutting an axis into parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Items [start, stop) of an axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def even_ranges(total: int, unit: int, most: int) -> Iterator[Range]:
    """Cover `total` with the fewest ranges of at most `most` units, as equal as whole units allow."""
    units = -(-total // unit)
    count = -(-units // max(1, most))
    bounds = [min(total, units * i // count * unit) for i in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield Range(start, stop)
