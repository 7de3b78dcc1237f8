"""AR cast: between all element types, with a rounding mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.arrays import Array, DType
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import BF16, F16, F32, round_to_16_bits, round_to_integer, to_f32
from runtime_sim.machine.instructions.operands import I64, is_float

MAX_F16 = 65504.0

Function = Callable[[Array], Array]


def caster(source: DType, result: DType, mode: int) -> Function:
    """The function from arrays of one type to arrays of another."""
    if mode > 4 and (is_float(source) or is_float(result)):
        raise SimulationError(f"rounding mode {mode} is for integer shifts only")
    if is_float(source):
        return _from_float(source, result, mode)
    return _from_integer(source, result, mode)


def _from_float(source: DType, result: DType, mode: int) -> Function:
    if not is_float(result):
        return lambda x: to_integer(to_f32(x), result, mode)
    if source == result:
        return lambda x: _to_whole(x, mode)
    if result == F32:
        return _widen
    if source != F32:
        raise SimulationError(f"a cast from {source} to {result}: the chip cannot")
    return lambda x: round_to_16_bits(to_f32(x), result, mode)


def to_integer(x: Array, result: DType, mode: int) -> Array:
    """Round, then cut to the type's range; NaN becomes 0."""
    limits = np.iinfo(result)
    x = _lift(x, mode)
    if result.itemsize == 4:  # f32 has no such limits
        x = x.astype(np.float64)
    whole = np.clip(round_to_integer(x, mode), limits.min, limits.max)
    nan = np.isnan(whole)
    return np.where(nan, 0, whole).astype(result) if nan.any() else whole.astype(result)


def _widen(x: Array) -> Array:
    """Exact, a bf16 NaN included; an f16 NaN becomes 0x7FFFFFFF with its sign."""
    out = x.astype(F32)
    if x.dtype == F16:
        nan = np.isnan(out)
        if nan.any():
            out.view(np.uint32)[nan] |= np.uint32(0x7FFFFFFF)
    return out


def _to_whole(x: Array, mode: int) -> Array:
    """The integer value next to x, in x's own type; a NaN stays as it is."""
    whole = round_to_integer(_lift(to_f32(x), mode), mode).astype(x.dtype, copy=False)
    nan = np.isnan(whole)
    return np.where(nan, x, whole) if nan.any() else whole


def _lift(x: Array, mode: int) -> Array:
    """f32 x with denormals made just large enough that rounding up or down sees them, as the chip does."""
    if mode < 3:
        return x
    magnitude = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    denormal = magnitude - np.uint32(1) < np.uint32(0x7FFFFF)
    return np.where(denormal, np.copysign(np.float32(1e-30), x), x) if denormal.any() else x


def _from_integer(source: DType, result: DType, mode: int) -> Function:
    if is_float(result):
        return _integer_to_float(source, result, mode)
    limits = np.iinfo(result)
    return lambda x: np.clip(x.astype(I64), limits.min, limits.max).astype(result)


def _integer_to_float(source: DType, result: DType, mode: int) -> Function:
    if source.itemsize == 1:  # every int8 is exact in every float type
        return lambda x: x.astype(F32).astype(result, copy=False)
    digits = {F32: 24, BF16: 8, F16: 11}[result]
    return lambda x: _finite_overflow(round_to_digits(x.astype(np.float64), digits, mode), result, mode)


def round_to_digits(x: Array, digits: int, mode: int) -> Array:
    """f64 x rounded once to so many binary digits."""
    exponent = np.frexp(x)[1] - digits
    rounded: Array = np.ldexp(round_to_integer(np.ldexp(x, -exponent), mode), exponent)
    return rounded


def _finite_overflow(x: Array, result: DType, mode: int) -> Array:
    """x in its new type; beyond the largest f16, a mode that rounds toward zero stays finite."""
    if result == F16 and mode > 1:
        bounds = {2: (-MAX_F16, MAX_F16), 3: (-np.inf, MAX_F16), 4: (-MAX_F16, np.inf)}[mode]
        x = np.clip(x, *bounds)
    return x.astype(result)
