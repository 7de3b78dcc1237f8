"""Flushing, narrowing and rounding of floats, against arithmetic in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from runtime_sim.machine.floats import (
    BF16,
    F16,
    F32,
    flush,
    flush_denormals,
    flush_in_software,
    narrow,
    product,
    round_to_16_bits,
    round_to_integer,
)

ODD = np.array([0.0, -0.0, 1e-40, -1e-40, 1.2e-38, np.inf, -np.inf, 1.5], F32)  # zeros, denormals, a small normal
ROUNDINGS = {  # by mode: of a number between two neighbours, and how far it is from the lower one
    0: lambda low, part: low + (part > Fraction(1, 2) or (part == Fraction(1, 2) and low % 2)),
    2: lambda low, part: low + (low < 0 and part > 0),
    3: lambda low, part: low,
    4: lambda low, part: low + (part > 0),
}


def away(low: int, part: Fraction) -> int:
    return low + (part > Fraction(1, 2) or (part == Fraction(1, 2) and low >= 0))


def exactly(x: Fraction, mode: int) -> int:
    low = math.floor(x)
    return int((ROUNDINGS.get(mode) or away)(low, x - low))


def test_denormals_become_zeros_of_their_sign():
    with flush_denormals():
        host = flush(ODD)
    for found in (host, flush_in_software(ODD)):
        assert found.tolist() == [0, 0, 0, 0, F32.type(1.2e-38), np.inf, -np.inf, 1.5]
        assert np.signbit(found).tolist() == np.signbit(ODD).tolist()


@pytest.mark.parametrize("mode", range(5))
def test_integers_are_those_of_exact_arithmetic(mode):
    below_half = float(np.nextafter(F32.type(0.5), F32.type(0)))
    values = [sign * x for x in (0.25, below_half, 0.5, 0.75, 1.5, 2.5, 3.0, 8388607.5) for sign in (1, -1)]
    found = round_to_integer(np.array(values, F32), mode)
    assert found.tolist() == [exactly(Fraction(x), mode) for x in values]


@pytest.mark.parametrize("mode", range(5))
@pytest.mark.parametrize(("dtype", "digits"), [(BF16, 8), (F16, 11)])
def test_16_bits_are_those_of_exact_arithmetic(dtype, digits, mode):
    rng = np.random.default_rng(mode)
    values = (rng.uniform(-4, 4, 500) * 2.0 ** rng.integers(-8, 8, 500)).astype(F32)
    values[:4] = [1 + 2.0**-digits, -1 - 2.0**-digits, 1 + 3 * 2.0**-digits, -1 - 3 * 2.0**-digits]  # ties
    with flush_denormals():
        found = round_to_16_bits(values, dtype, mode).astype(np.float64)
    for x, rounded in zip(values.tolist(), found.tolist(), strict=True):
        unit = Fraction(2) ** (math.frexp(x)[1] - digits)
        assert Fraction(rounded) == exactly(Fraction(x) / unit, mode) * unit, x


def test_a_nan_of_16_bits_has_one_form_and_in_casts_its_sign():
    nan = np.array([np.nan, -np.nan], F32)
    assert narrow(nan, BF16).view(np.uint16).tolist() == [0x7FFF, 0x7FFF]
    assert sorted(round_to_16_bits(nan, F16, 3).view(np.uint16).tolist()) == [0x7FFF, 0xFFFF]


@pytest.mark.parametrize(("last", "result"), [(2.0**-7, 2.0**-126), (2.0**-6, 0.0)])
def test_a_product_is_rounded_before_it_is_flushed(last, result):
    """(1 + 2**-7) * (1 - 2**-7) is 1 - 2**-14, which bf16 rounds up to 1; with 2**-6 it stays below."""
    a, b = (np.full(8, x * 2.0**-63).astype(BF16) for x in (1 + 2.0**-7, 1 - last))
    with flush_denormals():
        found = product(a, b, BF16)
    assert found.astype(np.float64).tolist() == [result] * 8
