"""Rows of weights in another order, and the names that say so."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.order import in_order, rows_in, weight_and_order
from compiler.weights.scheme import Scheme
from tests.helpers import random_codes


def test_a_name_says_a_weight_and_an_order():
    assert weight_and_order(in_order("up.weight", "down.weight.order")) == ("up.weight", "down.weight.order")
    assert weight_and_order("up.weight") == ("up.weight", None)


@pytest.mark.parametrize(
    "scheme", [Scheme(4, 8, True, BF16), Scheme(8, 8, False, BF16), Scheme(4, 8, False, BF16, minimum=True)]
)
def test_codes_keep_their_scales(scheme):
    weight, order = random_codes((5, 16), scheme, 0), np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(rows_in(weight, order).dequantize(), weight.dequantize()[order])


def test_floats():
    values = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(rows_in(values, np.array([2, 0, 1])), [[4, 5], [0, 1], [2, 3]])
