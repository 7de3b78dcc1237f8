"""Integer arithmetic of the AR family: wrapping, saturating, and shifts with rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime_sim.instructions.operands import I64, raw_of

Function = Callable[..., np.ndarray]

FAR = 62  # a right shift that leaves nothing of any value that occurs, and still fits 64 bits


def binary_integer(function: Function, left: np.dtype, right: np.dtype, result: np.dtype) -> Function:
    """An exact operation, wrapped to the result's width."""
    if left == right == result:
        return function
    if left.itemsize == right.itemsize == result.itemsize and function not in (np.maximum, np.minimum):
        raw = raw_of(result)  # modulo arithmetic does not see signs
        return lambda a, b: function(a.view(raw), b.view(raw)).view(result)
    return lambda a, b: function(a.astype(I64), b.astype(I64)).astype(result)


def saturating(function: Function, result: np.dtype, amount: int, mode: int) -> Function:
    """An exact operation, shifted by a constant, cut to the result's range."""
    low, high = np.iinfo(result).min, np.iinfo(result).max

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        exact = function(a.astype(I64), b.astype(I64))
        return np.clip(shift_rounding(exact, amount, mode), low, high).astype(result)

    return compute


def shift_rounding(value: np.ndarray, amount: int, mode: int) -> np.ndarray:
    """int64 values shifted left by amount, or right by -amount and rounded."""
    if amount >= 0:
        return value << min(amount, 63)
    return _round_right(value, np.int64(min(-amount, FAR)), mode)


def _round_right(value: np.ndarray, amount: np.ndarray | np.int64, mode: int) -> np.ndarray:
    """value / 2**amount for amount >= 1, rounded.

    0 ties to even, 1 ties away from zero, 2 toward zero, 3 down, 4 up, 5 ties up, 6 ties down.
    """
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


def shift(left: np.dtype, right: np.dtype, result: np.dtype, mode: int) -> Function:
    """Left by positive amounts (bits fall off), right with rounding by negative ones; the sign bit fills."""
    del left, right

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if b.ndim == 0:
            return _shift_by_constant(a, int(b), mode).astype(result, copy=False)
        return _shift_by_tensor(a.astype(I64), b.astype(I64), mode).astype(result)

    return compute


def _shift_by_constant(a: np.ndarray, amount: int, mode: int) -> np.ndarray:
    if -8 * a.itemsize < amount < 0 and (mode == 3 or (mode == 2 and a.dtype.kind == "u")):
        return a >> a.dtype.type(-amount)  # rounding down needs no more than the type itself
    return shift_rounding(a.astype(I64), amount, mode)


def _shift_by_tensor(value: np.ndarray, amount: np.ndarray, mode: int) -> np.ndarray:
    to_left = value << np.clip(amount, 0, 63)
    to_right = _round_right(value, np.clip(-amount, 1, FAR), mode)
    return np.where(amount >= 0, to_left, to_right)


def shift_logically(left: np.dtype, right: np.dtype, result: np.dtype, mode: int) -> Function:
    """Like `shift`, with zeros from the left whatever the sign."""
    arithmetic = shift(raw_of(left), right, result, mode)
    return lambda a, b: arithmetic(a.view(raw_of(left)), b)


def rotate(left: np.dtype, right: np.dtype, result: np.dtype, mode: int) -> Function:
    """Bits that fall off one end come back at the other; positive amounts go left."""
    del right, mode
    width, raw = 8 * left.itemsize, raw_of(left)

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        value, amount = a.view(raw).astype(np.uint64), (b.astype(I64) % width).astype(np.uint64)
        turned = value << amount | value >> (np.uint64(width) - amount) % np.uint64(64)
        return turned.astype(raw).astype(result)

    return compute
