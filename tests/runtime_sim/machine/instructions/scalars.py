"""Floating point by the book: every result is worked out in rationals and rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np

# Digits of the significand and exponent of the smallest normal number.
FORMATS = {
    np.dtype(np.float32): (24, -126),
    np.dtype(ml_dtypes.bfloat16): (8, -126),
    np.dtype(np.float16): (11, -14),
}
MODES = ("even", "away", "zero", "down", "up", "half_up", "half_down")


def whole(value: Fraction, mode: str) -> int:
    """The integer next to value."""
    floor = math.floor(value)
    rest = value - floor
    if mode in ("zero", "down", "up"):
        up = {"zero": value < 0, "down": False, "up": True}[mode]
        return floor + (up and rest > 0)
    if rest != Fraction(1, 2):
        return floor + (rest > Fraction(1, 2))
    return floor + {"even": floor % 2 == 1, "away": value > 0, "half_up": True, "half_down": False}[mode]


def rounded(value: Fraction, dtype, mode: str = "even", flushes: bool = True) -> Fraction | float:
    """value in the format of dtype: a rational, or an infinity; denormal results are zero if it flushes them."""
    digits, smallest = FORMATS[np.dtype(dtype)]
    if value == 0:
        return Fraction(0)
    exponent = exponent_of(value)
    if not flushes:
        exponent = max(exponent, smallest)
    unit = Fraction(2) ** (exponent - digits + 1)
    out = whole(value / unit, mode) * unit
    if flushes and abs(out) < Fraction(2) ** smallest:
        return Fraction(0)
    largest = (2 - Fraction(2) ** (1 - digits)) * Fraction(2) ** (-smallest + 1)
    if abs(out) <= largest:
        return out
    return math.copysign(math.inf, out)


def exponent_of(value: Fraction) -> int:
    """floor(log2(|value|))."""
    value = abs(value)
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def flushed(x: float) -> Fraction:
    """The value an operand counts as."""
    return Fraction(0) if abs(x) < 2.0**-126 else Fraction(x)


def block_sum(products):
    """Products cut to 24 bits below the largest, summed exactly, rounded once."""
    largest = max((exponent_of(p) for p in products if p), default=None)
    if largest is None:
        return Fraction(0)
    unit = Fraction(2) ** (largest - 24)
    return rounded(sum(math.trunc(p / unit) for p in products) * unit, np.float32)


def dot(row, column, block, start=None):
    """The chip's dot product."""
    products = [rounded(Fraction(a) * Fraction(b), np.float32) for a, b in zip(row, column, strict=True)]
    total = start
    for i in range(0, len(products), block):
        t = block_sum(products[i : i + block])
        total = t if total is None else rounded(total + t, np.float32)
    return total
