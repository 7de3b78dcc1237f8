"""The Newton iteration behind square roots and divisions.

Every operation is rounded to f32 on its own, so the results are the chip's, error included. Source: the
classic "fast inverse square root" start value, confirmed bit for bit on the vendor's C-model.
"""

from __future__ import annotations

import numpy as np

from runtime_sim.floats import F32, settle

MAGIC = np.int32(0x5F3759DF)
HALF, THREE_HALVES = np.float32(0.5), np.float32(1.5)


def reciprocal_square_root(x: np.ndarray, steps: int) -> np.ndarray:
    """1 / sqrt(x) after `steps` iterations of y = y * (1.5 - ((0.5 * x) * y) * y)."""
    y = (MAGIC - (np.ascontiguousarray(x).view(np.int32) >> 1)).view(F32)
    half = settle(HALF * settle(x))
    for _ in range(steps):
        y = settle(y * settle(THREE_HALVES - settle(settle(half * y) * y)))
    return y


def divide(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """a / b as (y * y) * a with y = 1 / sqrt(|b|) and the sign of b moved to a."""
    y = reciprocal_square_root(np.abs(b), steps)
    signed = np.where(np.signbit(b), -a, a)
    return settle(settle(y * y) * settle(signed))
