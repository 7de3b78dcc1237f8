"""Float comparisons as the chip makes them, with its own rules for NaN and for zeros of different sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime_sim.arrays import Array, Flags, Floats
from runtime_sim.machine.floats import F16, F32, TINY, flush, to_f32

Compare = Callable[[Floats, Floats], Flags]


def larger(a: Array, b: Array) -> Array:
    """a > b ? a : b; b when either is NaN or both are zero."""
    return _pick(np.maximum, greater, a, b)


def smaller(a: Array, b: Array) -> Array:
    """b <= a ? b : a; a when either is NaN, b when both are zero."""
    return _pick(np.minimum, lambda x, y: ~np.less_equal(flush(y), flush(x)), a, b)


def _pick(fast: Callable[[Floats, Floats], Floats], takes_first: Compare, a: Array, b: Array) -> Array:
    """One of a and b, bits unchanged, but denormals flushed (f16 keeps them)."""
    wide = fast(to_f32(a), to_f32(b))
    if _plain(wide, b):
        return wide.astype(F16) if a.dtype == F16 else flush(wide).astype(a.dtype, copy=False)
    return flush_bits(np.where(takes_first(to_f32(a), to_f32(b)), a, b))


def _plain(out: Floats, b: Array) -> bool:
    """Whether numpy's own maximum is the answer: no NaN, and no choice between zeros of different sign."""
    if b.ndim == 0 and b != 0:
        return not np.isnan(out).any()
    return not (np.isnan(out).any() or np.any(np.abs(out) < TINY))


def flush_bits(x: Array) -> Array:
    """x with denormals flushed and all else as it is, signalling NaN too; f16 denormals stay."""
    if x.dtype == F16:
        return x
    exponent, sign = (0x7F800000, 0x80000000) if x.dtype == F32 else (0x7F80, 0x8000)
    bits: Array = x.view(f"u{x.itemsize}")
    return np.where(bits & exponent, bits, bits & sign).view(x.dtype)


def greater(a: Floats, b: Floats) -> Flags:
    """a > b; false with NaN."""
    return np.greater(flush(a), flush(b))


def equal(a: Floats, b: Floats) -> Flags:
    """Equality of the bit patterns: -0 is not +0, a NaN equals itself."""
    return np.equal(_bits(a), _bits(b))


def less(a: Floats, b: Floats) -> Flags:
    """a < b; with a NaN, true unless both have the same bits."""
    unordered = np.isnan(a) | np.isnan(b)
    return np.less(flush(a), flush(b)) | (unordered & np.not_equal(_bits(a), _bits(b)))


def _bits(x: Floats) -> npt.NDArray[np.uint32]:
    return np.asarray(x).view(np.uint32)


INTEGER_COMPARE: dict[str, Callable[[Array, Array], Flags]] = {
    "gt": np.greater,
    "eq": np.equal,
    "lt": np.less,
}
FLOAT_COMPARE: dict[str, Compare] = {
    "gt": greater,
    "eq": equal,
    "lt": less,
}
