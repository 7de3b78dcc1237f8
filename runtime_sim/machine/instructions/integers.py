"""Integer arithmetic of the AR family: wrapping, saturating, and shifts with rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.arrays import Array, DType, Flags, Longs
from runtime_sim.machine.instructions.operands import I16, I32, I64, raw_of

Function = Callable[..., Array]

FAR = 62  # a right shift that leaves nothing of any value that occurs, and still fits 64 bits


def binary_integer(function: Function, left: DType, right: DType, result: DType) -> Function:
    """An exact operation, wrapped to the result's width."""
    if left == right == result:
        return function
    if left.itemsize == right.itemsize == result.itemsize:
        raw = raw_of(result)  # modulo arithmetic does not see signs
        return lambda a, b: function(a.view(raw), b.view(raw)).view(result)
    return lambda a, b: function(a.astype(I64), b.astype(I64)).astype(result)


def saturating(function: Function, result: DType, amount: int, mode: int) -> Function:
    """An exact operation, shifted by a constant, cut to the result's range."""
    low, high = np.iinfo(result).min, np.iinfo(result).max

    def compute(a: Array, b: Array) -> Array:
        exact = _exactly(function, a, b)
        if amount > 0:
            return _shift_left_saturating(exact, amount, result)
        if amount < 0:
            exact = shift_rounding(exact.astype(I64), amount, mode)
        return np.clip(exact, low, high).astype(result)

    return compute


def _shift_left_saturating(exact: Array, amount: int, result: DType) -> Array:
    low, high = np.iinfo(result).min, np.iinfo(result).max
    if low >> amount < exact.min() and exact.max() <= high >> amount:
        shifted: Array = exact.astype(result) << result.type(amount)
        return shifted
    # What would leave 64 bits is out of range anyway.
    inside = np.clip(exact.astype(I64), -(1 << 62) >> amount, 1 << 62 >> amount)
    cut: Longs = np.clip(inside << amount, low, high)
    return cut.astype(result)


def _exactly(function: Function, a: Array, b: Array) -> Array:
    """The exact result in a type that holds it; products of two uint32 are cut to int64's range."""
    if function is np.multiply and a.dtype == b.dtype == np.uint32:
        product = a.astype(np.uint64) * b.astype(np.uint64)
        return np.minimum(product, np.uint64((1 << 63) - 1)).astype(I64)
    wide = _wide_enough(function, a, b)
    return function(a.astype(wide), b.astype(wide))


def _wide_enough(function: Function, a: Array, b: Array) -> DType:
    """The smallest signed type in which the result cannot overflow; a constant counts by its value."""
    bits = [8 * x.itemsize if x.ndim else int(x).bit_length() + 1 for x in (a, b)]
    needed = sum(bits) + 2 if function is np.multiply else max(bits) + 2
    return next((t for t in (I16, I32) if needed <= 8 * t.itemsize), I64)


def shift_rounding(value: Longs, amount: int, mode: int) -> Longs:
    """int64 values shifted left by amount mod 32, or right by -amount and rounded."""
    if amount >= 0:
        return value << (amount & 31)
    return _round_right(value, np.int64(min(-amount, FAR)), mode)


def _round_right(value: Longs, amount: Longs | np.int64, mode: int) -> Longs:
    """value / 2**amount for amount >= 1, rounded.

    0 ties to even, 1 ties away from zero, 2 toward zero, 3 down, 4 up, 5 ties up, 6 ties down.
    """
    up: Flags
    floor = value >> amount
    rest = value - (floor << amount)
    half = np.int64(1) << (amount - 1)
    if mode == 3:
        return floor
    if mode == 2:
        up = (value < 0) & (rest != 0)
    elif mode == 4:
        up = rest != 0
    else:
        tie = {0: (floor & 1) != 0, 1: value >= 0, 5: np.True_, 6: np.False_}[mode]
        up = (rest > half) | ((rest == half) & tie)
    return floor + up


def shift(left: DType, right: DType, result: DType, mode: int) -> Function:
    """Left by positive amounts (bits fall off), right with rounding by negative ones; the sign bit fills."""
    del left, right

    def compute(a: Array, b: Array) -> Array:
        if b.ndim == 0:
            return _shift_by_constant(a, int(b), mode).astype(result, copy=False)
        return _shift_by_tensor(a.astype(I64), b.astype(I64), mode).astype(result)

    return compute


def _shift_by_constant(a: Array, amount: int, mode: int) -> Array:
    if -8 * a.itemsize < amount < 0 and (mode == 3 or (mode == 2 and a.dtype.kind == "u")):
        shifted: Array = a >> a.dtype.type(-amount)  # rounding down needs no more than the type itself
        return shifted
    return shift_rounding(a.astype(I64), amount, mode)


def _shift_by_tensor(value: Longs, amount: Longs, mode: int) -> Longs:
    to_left = value << (amount & 31)
    to_right = _round_right(value, np.clip(-amount, 1, FAR), mode)
    return np.where(amount >= 0, to_left, to_right)


def shift_logically(left: DType, right: DType, result: DType, mode: int) -> Function:
    """Like `shift`, with zeros from the left whatever the sign."""
    arithmetic = shift(raw_of(left), right, result, mode)
    return lambda a, b: arithmetic(a.view(raw_of(left)), b)
