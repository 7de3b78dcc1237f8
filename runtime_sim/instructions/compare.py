"""Float comparisons as the chip makes them, with its own rules for NaN and for zeros of different sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.floats import flush


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a > b ? a : b on flushed f32: b when either is NaN or both are zero."""
    out = np.maximum(a, b)
    if _plain(out, b):
        return flush(out)
    return flush(np.where(flush(a) > flush(b), a, b))


def smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b <= a ? b : a on flushed f32: a when either is NaN, b when both are zero."""
    out = np.minimum(a, b)
    if _plain(out, b):
        return flush(out)
    return flush(np.where(flush(b) <= flush(a), b, a))


def _plain(out: np.ndarray, b: np.ndarray) -> bool:
    """Whether numpy's own maximum is the answer: no NaN, and no choice between zeros of different sign."""
    if b.ndim == 0 and b != 0:
        return not np.isnan(out).any()
    return not (np.isnan(out).any() or np.any(np.abs(out) < np.float32(2.0**-126)))


def greater(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a > b; false with NaN."""
    return np.greater(flush(a), flush(b))


def equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equality of the flushed bit patterns: -0 is not +0, a NaN equals itself."""
    return np.equal(flush(a).view(np.uint32), flush(b).view(np.uint32))


def less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a < b; true when exactly one of them is NaN."""
    return np.less(flush(a), flush(b)) | (np.isnan(a) ^ np.isnan(b))


FLOAT_COMPARE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gt": greater,
    "eq": equal,
    "lt": less,
}
