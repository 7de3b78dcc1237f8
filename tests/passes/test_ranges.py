"""Ranges that cover a total: few, even, of whole units."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passes.ranges import even_ranges, falling_ranges


@given(total=st.integers(1, 2000), unit=st.sampled_from([1, 7, 64]), most=st.integers(0, 40))
def test_ranges_are_as_few_and_as_even_as_whole_units_allow(total, unit, most):
    ranges = list(even_ranges(total, unit, most))
    units = -(-total // unit)
    assert [item for part in ranges for item in range(part.start, part.stop)] == list(range(total))
    assert len(ranges) == -(-units // max(1, most))
    sizes = [-(-part.size // unit) for part in ranges]
    assert max(sizes) <= max(1, most)
    assert max(sizes) - min(sizes) <= 1
    assert all(part.start % unit == 0 for part in ranges)


@given(total=st.integers(1, 2000), unit=st.sampled_from([1, 7, 64]), most=st.integers(0, 40))
def test_falling_ranges_are_even_ones_the_larger_first(total, unit, most):
    ranges = list(falling_ranges(total, unit, most))
    assert [item for part in ranges for item in range(part.start, part.stop)] == list(range(total))
    sizes, even = ([-(-part.size // unit) for part in each] for each in (ranges, even_ranges(total, unit, most)))
    assert sizes == sorted(even, reverse=True)
    assert all(part.start % unit == 0 for part in ranges)
