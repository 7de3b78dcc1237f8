"""What is known of inputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from compiler.weights.moments import WIDEST, Moments, Squares, spans


def test_sums_add_up_to_means():
    assert (Squares(np.array([8.0, 2]), 2) + Squares(np.array([0, 2.0]), 2)).mean.tolist() == [2, 1]
    one = Moments([np.float32([[4, 1], [1, 2]]), np.float32([[6]])], 1)
    both = one + one
    assert both.mean.tolist() == [4, 2, 6]
    assert both.spans == [slice(0, 2), slice(2, 3)]


def test_inputs_times_factors_have_products_times_both():
    found = Moments([np.float32([[4, 1], [1, 2]]), np.float32([[6]])], 1).times(np.float32([2, 3, 0.5]))
    assert [each.tolist() for each in found.squares] == [[[16, 6], [6, 18]], [[1.5]]]


def test_what_errors_cost_are_the_squares_of_what_they_add_to_outputs():
    inputs, errors = (np.random.default_rng(0).normal(size=(rows, 6)) for rows in (50, 4))
    products = [inputs[:, span].T @ inputs[:, span] for span in (slice(0, 4), slice(4, 6))]
    added = [np.sum((errors[:, span] @ inputs[:, span].T) ** 2) for span in (slice(0, 4), slice(4, 6))]
    assert Moments(products, 50).cost(errors) == pytest.approx(sum(added))
    alone = np.sum((errors[:, None] * inputs) ** 2)
    assert Squares((inputs**2).sum(0), 50).cost(errors) == pytest.approx(alone)


def test_spans_are_of_whole_groups_and_not_too_wide():
    assert spans(3584, 64) == [slice(0, 3584)]
    found = spans(18944, 128)
    assert found[0].start == 0
    assert found[-1].stop == 18944
    assert all(a.stop == b.start and a.stop % 128 == 0 for a, b in pairwise(found))
    assert max(each.stop - each.start for each in found) <= WIDEST + 128
    assert spans(2 * WIDEST, 2 * WIDEST) == [slice(0, 2 * WIDEST)]
