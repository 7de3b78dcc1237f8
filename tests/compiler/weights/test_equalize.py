"""Factors of inputs, and vectors that are divided by them."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.equalize import Reader, best_factors, divided, powers
from compiler.weights.moments import Moments
from compiler.weights.scheme import Scheme

SCHEME = Scheme(4, 16, True, BF16)


def test_powers_have_a_mean_of_one():
    found = powers(np.float32([1, 16, 0, 4]), 0.5)
    assert found[1] == pytest.approx(2 * found[0])
    assert np.isfinite(found).all()
    assert np.log(found).mean() == pytest.approx(0, abs=1e-6)
    assert powers(np.float32([1, 16]), 0).tolist() == [1, 1]


def test_a_large_input_has_finer_steps_and_alike_ones_are_left_alone():
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    alike = Moments([np.eye(32, dtype=np.float32)], 1)
    assert best_factors([Reader(weight, SCHEME)], alike).tolist() == [1] * 32
    sizes = np.ones(32, np.float32)
    sizes[3] = 1000
    found = best_factors([Reader(weight, SCHEME)], Moments([np.diag(sizes)], 1))
    assert found[3] > 1.5 * found[0]


def test_a_divided_vector_is_held_by_16_bits_and_its_factors_are_exact():
    vector = np.float32([1, -0.3, 0, 2])
    for offset in (0.0, 1.0):
        values, by = divided(vector, np.float32([3, 0.7, 5, 1]), BF16.numpy, offset)
        np.testing.assert_array_equal(values, values.astype(BF16.numpy).astype(np.float32))
        np.testing.assert_allclose((values + offset) * by, vector + offset, rtol=1e-6)
        assert (by > 0).all()
    assert divided(vector, np.float32([3, 0.7, 5, 1]), BF16.numpy)[1][2] == 1
