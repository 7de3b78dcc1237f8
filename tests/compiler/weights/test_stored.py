"""Weights in memory: parts of them, and several as one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, convert, joined, rectangle
from tests.helpers import random_tensor

SCHEME = Scheme(4, 32, True, BF16)
MINIMUM = Scheme(4, 32, False, BF16, minimum=True)


def codes_of(rows: int, columns: int, scheme: Scheme = SCHEME, seed: int = 0) -> Quantized:
    return quantize(random_tensor(rows, columns, seed=seed), scheme)


@pytest.mark.parametrize("scheme", [SCHEME, Scheme(4, 32, False, BF16), Scheme(8, 32, False, BF16)])
def test_a_rectangle_of_codes_decodes_to_the_rectangle_of_the_weight(scheme):
    whole = codes_of(40, 128, scheme)
    part = rectangle(whole, slice(3, 20), slice(32, 96))
    assert isinstance(part, Quantized)
    np.testing.assert_array_equal(part.dequantize(), whole.dequantize()[3:20, 32:96])


def test_a_rectangle_does_not_split_groups():
    with pytest.raises(ValueError, match=r"columns 0\.\.48 split a group of 32"):
        rectangle(codes_of(4, 96), slice(0, 4), slice(0, 48))
    assert rectangle(np.zeros((4, 96)), slice(0, 4), slice(0, 48)).shape == (4, 48)


@pytest.mark.parametrize("scheme", [SCHEME, Scheme(4, 32, False, BF16)])
def test_parts_are_joined_row_after_row(scheme):
    parts = [codes_of(5, 64, scheme), codes_of(7, 64, scheme, seed=1)]
    whole = joined(parts)
    assert isinstance(whole, Quantized)
    np.testing.assert_array_equal(whole.dequantize(), np.concatenate([part.dequantize() for part in parts]))
    floats = [part.dequantize() for part in parts]
    np.testing.assert_array_equal(joined(floats), np.concatenate(floats))


def test_minimums_go_with_their_rows_and_groups():
    rng = np.random.default_rng(0)
    scales, minimums = (rng.normal(size=(6, 4)).astype(BF16.numpy) for _ in range(2))
    codes = rng.integers(0, 16, (6, 128)).astype(np.uint8)
    whole = Quantized(codes, scales, None, MINIMUM, minimums)
    wide = (x.astype(np.float32).repeat(32, 1) for x in (scales, minimums))
    values = codes * next(wide) + next(wide)
    np.testing.assert_array_equal(whole.dequantize(), values)
    part = rectangle(whole, slice(1, 4), slice(32, 96))
    np.testing.assert_array_equal(part.dequantize(), values[1:4, 32:96])
    halves = [rectangle(whole, slice(0, 4)), rectangle(whole, slice(4, 6))]
    np.testing.assert_array_equal(joined(halves).dequantize(), values)


def arrays(**changes: object) -> dict[str, object]:
    fields = {
        "codes": np.zeros((4, 64), np.uint8),
        "scales": np.ones((4, 2), BF16.numpy),
        "zeros": np.zeros((4, 2), np.uint8),
        "scheme": SCHEME,
    }
    return fields | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros((4, 64), np.int8)}, r"codes are int8\[4, 64\], expected uint8\[4, 64\]"),
        ({"codes": np.zeros((4, 48), np.uint8)}, "48 is not a multiple of group 32"),
        ({"scales": np.ones((4, 2), np.float16)}, "scales are float16"),
        ({"scales": np.ones((2, 4), BF16.numpy)}, r"scales are bfloat16\[2, 4\]"),
        ({"zeros": None}, "without zero points"),
        ({"minimums": np.zeros((4, 2), BF16.numpy)}, "with minimums"),
        ({"zeros": None, "scheme": MINIMUM}, "without minimums"),
        ({"zeros": None, "scheme": MINIMUM, "minimums": np.zeros((4, 2), np.float16)}, "minimums are float16"),
        ({"scheme": Scheme(4, 32, False, BF16)}, "with zero points"),
        ({"zeros": np.zeros((4, 1), np.uint8)}, r"zeros are uint8\[4, 1\]"),
    ],
)
def test_arrays_that_are_not_those_of_the_scheme_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Quantized(**arrays(**changes))


def test_a_code_that_4_bits_do_not_hold_is_found():
    codes = np.full((4, 64), 15, np.uint8)
    Quantized(**arrays(codes=codes)).check_range()
    codes[2, 7] = 16
    with pytest.raises(ValueError, match="a code is 16, which 4 bits do not hold"):
        Quantized(**arrays(codes=codes)).check_range()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_values_are_converted_to_the_nearest(dtype, half):
    values = random_tensor(64, 64).astype(dtype)
    np.testing.assert_array_equal(convert(values, np.dtype(half)), values.astype(np.float32).astype(half))
