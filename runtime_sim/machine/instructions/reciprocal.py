"""The Newton iteration behind square roots and divisions.

Every operation is rounded to f32 on its own, so the results are the chip's, error included. Source: the
classic "fast inverse square root" start value, confirmed bit for bit on the vendor's C-model.
"""

from __future__ import annotations

import numpy as np

from runtime_sim.arrays import Flags, Floats
from runtime_sim.machine.floats import F32, INVALID, settle

MAGIC = np.int32(0x5F3759DF)
HALF, THREE_HALVES = np.float32(0.5), np.float32(1.5)


def reciprocal_square_root(x: Floats, steps: int) -> Floats:
    """1 / sqrt(x) after `steps` iterations of y = y * (1.5 - ((0.5 * x) * y) * y)."""
    y = (MAGIC - (np.ascontiguousarray(x).view(np.int32) >> 1)).view(F32)
    half = settle(HALF * settle(x))
    for _ in range(steps):
        factor = settle(half * y)
        factor = settle(np.multiply(factor, y, out=factor))
        factor = settle(np.subtract(THREE_HALVES, factor, out=factor))
        y = settle(np.multiply(y, factor, out=factor))
    return y


def checked_square_root(x: Floats, steps: int) -> Floats:
    """The same as BM1688 does it: fixed results for NaN and negatives, infinity, and zeros."""
    out = np.where(np.isinf(x), np.float32(0), reciprocal_square_root(x, steps))
    out = np.where(_is_zero(x), np.copysign(np.float32(np.inf), x), out)
    return np.where(np.isnan(x) | (settle(x) < 0), INVALID, out)


def _is_zero(x: Floats) -> Flags:
    """Where x is +0 or -0; a denormal is not."""
    zero: Flags = x.view(np.uint32) & np.uint32(0x7FFFFFFF) == 0
    return zero


def divide(a: Floats, b: Floats, steps: int, checked: bool) -> Floats:
    """a / b as (y * y) * a with y = 1 / sqrt(|b|) and the sign of b moved to a.

    `checked`: as BM1688 does it, with `checked_square_root`, and infinite for every a over 0 but NaN and 0
    itself.
    """
    negative = np.signbit(b)
    signed = np.where(negative, -a, a) if negative.any() else a
    if not checked:
        y = reciprocal_square_root(np.abs(b), steps)
        return settle(settle(y * y) * settle(signed))
    y = checked_square_root(np.abs(b), steps)
    quotient = settle(settle(y * y) * settle(signed))
    infinite = _is_zero(b) & ~_is_zero(a) & ~np.isnan(a)
    return np.where(infinite, np.copysign(np.float32(np.inf), signed), quotient)
