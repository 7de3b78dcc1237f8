"""Cosine and errors between arrays."""

import ml_dtypes
import numpy as np
import pytest

from tests.compare import compare

BF16 = ml_dtypes.bfloat16


def test_equal_arrays_differ_in_nothing():
    array = np.array([1, -2, 0.5], np.float32)
    difference = compare(array, array.copy())
    assert (difference.cosine, difference.max_error, difference.differing) == (1, 0, 0)


def test_cosine_and_error_of_known_arrays():
    difference = compare(np.array([1.0, 0]), np.array([1.0, 1]))
    assert difference.cosine == pytest.approx(0.5**0.5)
    assert difference.max_error == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_items_differ_by_their_bits(dtype):
    one = np.array([1, 0], dtype)
    assert compare(one, np.array([1, -0.0], dtype)).differing == 1


def test_types_may_differ():
    difference = compare(np.array([1.0, 2.0], np.float32), np.array([1, 2]).astype(BF16))
    assert (difference.differing, difference.cosine) == (0, pytest.approx(1))


def test_nan_is_no_agreement():
    difference = compare(np.array([np.nan, 1]), np.array([0.0, 1]))
    assert not difference.cosine >= 0
    assert np.isnan(difference.max_error)


def test_zero_vectors():
    zero, one = np.zeros(2), np.ones(2)
    assert compare(zero, zero).cosine == 1
    assert compare(zero, one).cosine == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="cannot compare"):
        compare(np.zeros(2), np.zeros((1, 2)))
