"""Float comparisons as the chip makes them, with its own rules for NaN and for zeros of different sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.machine.floats import F16, F32, TINY, flush, to_f32

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a > b ? a : b; b when either is NaN or both are zero."""
    return _pick(np.maximum, greater, a, b)


def smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b <= a ? b : a; a when either is NaN, b when both are zero."""
    return _pick(np.minimum, lambda x, y: ~np.less_equal(flush(y), flush(x)), a, b)


def _pick(fast: Compare, takes_first: Compare, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One of a and b, bits unchanged, but denormals flushed (f16 keeps them)."""
    wide = fast(to_f32(a), to_f32(b))
    if _plain(wide, b):
        return wide.astype(F16) if a.dtype == F16 else flush(wide).astype(a.dtype, copy=False)
    return flush_bits(np.where(takes_first(to_f32(a), to_f32(b)), a, b))


def _plain(out: np.ndarray, b: np.ndarray) -> bool:
    """Whether numpy's own maximum is the answer: no NaN, and no choice between zeros of different sign."""
    if b.ndim == 0 and b != 0:
        return not np.isnan(out).any()
    return not (np.isnan(out).any() or np.any(np.abs(out) < TINY))


def flush_bits(x: np.ndarray) -> np.ndarray:
    """x with denormals flushed and all else as it is, signalling NaN too; f16 denormals stay."""
    if x.dtype == F16:
        return x
    raw, exponent = (np.uint32, 0x7F800000) if x.dtype == F32 else (np.uint16, 0x7F80)
    bits = x.view(raw)
    sign = raw(1 << 8 * x.itemsize - 1)
    return np.where(bits & raw(exponent), bits, bits & sign).view(x.dtype)


def greater(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a > b; false with NaN."""
    return np.greater(flush(a), flush(b))


def equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equality of the bit patterns: -0 is not +0, a NaN equals itself."""
    return np.equal(_bits(a), _bits(b))


def less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a < b; with a NaN, true unless both have the same bits."""
    unordered = np.isnan(a) | np.isnan(b)
    return np.less(flush(a), flush(b)) | (unordered & (_bits(a) != _bits(b)))


def _bits(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).view(np.uint32)


FLOAT_COMPARE: dict[str, Compare] = {
    "gt": greater,
    "eq": equal,
    "lt": less,
}
