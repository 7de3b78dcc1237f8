"""AR cast: between all element types, with a rounding mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.errors import SimulationError
from runtime_sim.floats import F32, flush, round_to_16_bits, round_to_integer, to_f32
from runtime_sim.instructions.operands import I64, is_float

Function = Callable[[np.ndarray], np.ndarray]


def caster(source: np.dtype, result: np.dtype, mode: int) -> Function:
    """The function from arrays of one type to arrays of another."""
    if mode > 4 and (is_float(source) or is_float(result)):
        raise SimulationError(f"rounding mode {mode} is for integer shifts only")
    if is_float(source):
        return _from_float(source, result, mode)
    return _from_integer(source, result, mode)


def _from_float(source: np.dtype, result: np.dtype, mode: int) -> Function:
    if not is_float(result):
        return lambda x: to_integer(to_f32(x), result, mode)
    if source == result:  # to an integer value of the same type
        return lambda x: flush(round_to_integer(to_f32(x), mode)).astype(result)
    if result == F32:
        return to_f32
    return lambda x: round_to_16_bits(to_f32(x), result, mode)


def to_integer(x: np.ndarray, result: np.dtype, mode: int) -> np.ndarray:
    """Round, then cut to the type's range; NaN becomes 0."""
    limits = np.iinfo(result)
    whole = round_to_integer(x.astype(np.float64), mode)
    return np.nan_to_num(np.clip(whole, limits.min, limits.max), nan=0.0).astype(result)


def _from_integer(source: np.dtype, result: np.dtype, mode: int) -> Function:
    if is_float(result):
        return _integer_to_float(source, result, mode)
    limits = np.iinfo(result)
    return lambda x: np.clip(x.astype(I64), limits.min, limits.max).astype(result)


def _integer_to_float(source: np.dtype, result: np.dtype, mode: int) -> Function:
    if source.itemsize == 1:  # every int8 is exact in every float type
        return lambda x: x.astype(F32).astype(result, copy=False)
    if result == F32:
        return lambda x: x.astype(F32)
    return lambda x: round_to_16_bits(x.astype(F32), result, mode)
