"""The chip's floating-point environment in numpy: flushed denormals, 16-bit formats, rounding.

The chip treats denormal f32 inputs as zeros and turns denormal f32 results into zeros, keeping the sign.
Where we can, we let the host processor do it (`flush_denormals`), which costs nothing and rounds at the
boundary exactly as the vendor's C-model does; elsewhere `flush` does it in numpy.

Formats in memory: f32 as float32, f16 as float16, bf16 as ml_dtypes.bfloat16. Arithmetic is always in f32.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from types import TracebackType

import ml_dtypes
import numpy as np

from runtime_sim.arrays import Array, DType, Floats

F32 = np.dtype(np.float32)
F16 = np.dtype(np.float16)
BF16 = np.dtype(ml_dtypes.bfloat16)
TINY = np.float32(2.0**-126)  # the smallest normal f32
ROUNDS_TO_TINY = 2.0**-126 * (1 - 2.0**-9)  # the smallest product that is TINY when rounded to bf16
INVALID = np.array(0xFFC00000, np.uint32).view(F32)  # the f32 NaN that products and roots give
NAN_16 = 0x7FFF  # what a 16-bit NaN result looks like

# Where the control register lies in glibc's fenv_t (32-bit words), and its bits that flush inputs and
# results.
_CONTROL = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}


def _c_library() -> ctypes.CDLL | None:
    """The C library, if it has the environment functions in the form we know."""
    if sys.platform != "linux" or platform.machine() not in _CONTROL or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL("libm.so.6")


_LIBRARY = _c_library()
_Environment = ctypes.c_uint32 * 16


def _flushing_environment() -> ctypes.Array[ctypes.c_uint32] | None:
    """A copy of the present environment with flushing switched on; None where the host cannot do it."""
    if _LIBRARY is None:
        return None
    environment = _Environment()
    _LIBRARY.fegetenv(environment)
    word, bits = _CONTROL[platform.machine()]
    environment[word] |= bits
    return environment


_FLUSHING = _flushing_environment()


class flush_denormals:
    """Within this context the host's f32 arithmetic flushes denormals, if the host can; contexts may nest."""

    def __enter__(self) -> None:
        if _LIBRARY is not None:
            self._saved = _Environment()
            _LIBRARY.fegetenv(self._saved)
            _LIBRARY.fesetenv(_FLUSHING)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _LIBRARY is not None:
            _LIBRARY.fesetenv(self._saved)


def _host_flushes() -> bool:
    """Whether numpy's arithmetic really flushes within the context, inputs and results."""
    denormal, small = np.full(67, 1e-40, F32), np.full(67, TINY, F32)
    with flush_denormals():
        return not (np.any(denormal + denormal) or np.any(small * np.float32(0.5)))


HOST_FLUSHES = _host_flushes()


def flush(x: Floats) -> Floats:
    """x with denormals turned into zeros of the same sign. Call within `flush_denormals`."""
    if HOST_FLUSHES:
        return np.multiply(x, np.float32(1.0))
    return flush_in_software(x)


def flush_in_software(x: Floats) -> Floats:
    """`flush` without the host's help."""
    return np.where(np.abs(x) < TINY, np.copysign(np.float32(0.0), x), x)


def settle(x: Floats) -> Floats:
    """An operand or result of f32 arithmetic: flushed here unless the host does it anyway."""
    return x if HOST_FLUSHES else flush_in_software(x)


def to_f32(x: Array) -> Floats:
    """Any float array as f32; exact, no flushing."""
    return x if x.dtype == F32 else x.astype(F32)


def narrow(x: Floats, dtype: DType) -> Array:
    """The f32 results x in a float format, rounded to nearest even; a 16-bit NaN is 0x7FFF."""
    if dtype == F32:
        return x
    out = x.astype(dtype)
    nan = np.isnan(x)
    if nan.any():
        out.view(np.uint16)[nan] = NAN_16
    return out


def product(a: Array, b: Array, dtype: DType) -> Array:
    """a * b of operands of one float format, in that format.

    A bf16 product is rounded before it is flushed: what rounds up to the smallest normal number stays.
    """
    left, right = settle(to_f32(a)), settle(to_f32(b))
    out = narrow(settle(left * right), dtype)
    if dtype == BF16:
        lost = (out == 0) & (left != 0) & (right != 0)
        if lost.any():
            exact = left.astype(np.float64) * right.astype(np.float64)
            kept = lost & (np.abs(exact) >= ROUNDS_TO_TINY)
            out = np.where(kept, np.copysign(TINY, exact).astype(BF16), out)
    return out


def round_to_integer(x: Array, mode: int) -> Array:
    """Float x as an integer value: 0 ties to even, 1 ties away from zero, 2 toward zero, 3 down, 4 up."""
    if mode == 1:
        # Not a half itself: that sum would round up for the float just below a half too.
        below_half = np.nextafter(x.dtype.type(0.5), x.dtype.type(0))
        x = x + np.copysign(below_half, x)
    return _ROUNDINGS[mode](x)


_ROUNDINGS: dict[int, Callable[[Array], Array]] = {
    0: np.rint,
    1: np.trunc,  # of what is already a half further away
    2: np.trunc,
    3: np.floor,
    4: np.ceil,
}


def round_to_16_bits(x: Floats, dtype: DType, mode: int) -> Array:
    """f32 x cast to bf16 or f16 with a rounding mode, numbered as in `round_to_integer`.

    bf16 obeys the mode on overflow too (toward zero never gives infinity); what rounds beyond the largest f16
    is infinite in every mode. A NaN keeps its sign and becomes 0x7FFF or 0xFFFF.
    """
    x = flush(x)
    if mode == 0:
        out = x.astype(dtype)
    else:
        out = _directed_bf16(x, mode) if dtype == BF16 else _directed_f16(x, mode)
    nan = np.isnan(x)
    if nan.any():
        out.view(np.uint16)[nan] = np.where(np.signbit(x[nan]), 0x8000 | NAN_16, NAN_16)
    return out


def _directed_bf16(x: Floats, mode: int) -> Array:
    """Add to the bits what makes the lower half carry where the mode says so, and keep the upper half."""
    bits = x.view(np.uint32)
    if mode == 1:
        bits = bits + np.uint32(0x8000)
    elif mode > 2:
        grows = np.signbit(x) if mode == 3 else ~np.signbit(x)
        bits = bits + np.where(grows, np.uint32(0xFFFF), np.uint32(0))
    return (bits >> 16).astype(np.uint16).view(BF16)


def _directed_f16(x: Floats, mode: int) -> Array:
    """Round x in units of its last f16 digit, which is 2**-24 for f16 denormals."""
    exponent = np.maximum(np.frexp(x)[1] - 11, -24)
    finite = np.isfinite(x)
    units = np.ldexp(np.where(finite, x, 0).astype(np.float64), -exponent)
    rounded = np.ldexp(round_to_integer(units, mode), exponent)
    return np.where(finite, rounded, x).astype(F16)
