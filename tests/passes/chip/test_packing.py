"""Ranges of local memory that are taken for some positions of a program."""

from __future__ import annotations

import random

from passes.chip.packing import BLOCK, Taken, TakenRange


def test_ranges_are_found_by_any_positions_that_they_are_taken_at():
    numbers = random.Random(0)
    ranges, taken = set[TakenRange](), Taken()
    for _ in range(200):
        start, first = numbers.randrange(1000), numbers.randrange(20 * BLOCK)
        made = TakenRange(start, start + numbers.randrange(1, 100), first, first + numbers.randrange(5 * BLOCK))
        if made not in ranges:
            ranges.add(made)
            taken.add(made)
    for _ in range(200):
        first = numbers.randrange(20 * BLOCK)
        last = first + numbers.randrange(5 * BLOCK)
        assert taken.during(first, last) == sorted(each for each in ranges if each.first <= last and each.last >= first)
