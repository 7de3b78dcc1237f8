"""How an axis is shared out."""

from __future__ import annotations

import pytest

from passes.llm.shares import by_weight, even


def sizes(cuts) -> list[int]:
    assert cuts is not None
    assert [cut.start for cut in cuts[1:]] == [cut.stop for cut in cuts[:-1]]
    return [cut.size for cut in cuts]


@pytest.mark.parametrize(
    ("total", "unit", "count", "wanted"),
    [
        (9, 1, 2, [5, 4]),
        (8, 1, 4, [2, 2, 2, 2]),
        (10, 1, 4, [3, 3, 2, 2]),
        (576, 64, 2, [320, 256]),
        (100, 64, 2, [64, 36]),  # the last of a part of a unit
    ],
)
def test_as_many_units_each(total, unit, count, wanted):
    assert sizes(even(total, unit, count)) == wanted


def test_too_few_units_are_shared_by_none():
    assert even(3, 1, 4) is None
    assert even(64, 64, 2) is None


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [([3.0, 1.0], [768, 256]), ([0.0, 1.0], [64, 960]), ([0.0, 0.0], [512, 512]), ([0.0, 0.0, 1.0], [64, 64, 896])],
)
def test_shares_follow_weights_and_none_is_empty(weights, wanted):
    assert sizes(by_weight(1024, 64, weights)) == wanted
