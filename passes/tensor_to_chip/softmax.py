"""Weights of a softmax, powers of two of 16 bit: for bf16 in fixed point, by integers of 8 and 16 bit.

Most of the vector work of attention is here, and items of 16 bit take half the time of f32, those of 8 bit a
quarter. With x = n + f, n whole and 0 <= f < 1, the bits of bf16 2**x are

    128 (127 + x) - 128 (1 + f - 2**f),    and    1 + f - 2**f = 0.34 f (1 - f), nearly.

One f32 addition gives 127 + x in steps of 1 / 256: from 2**23 on f32 is whole numbers, and the low half of
its bits is what it is more than that. The first of its bytes tells a sum that is at least 2**23 from all
others, those of masked scores, so what is below all exponents of bf16 is found by a comparison of bytes, and
that of a key that a client hides by the same: beside another byte, which no sum is above. The fraction is the
last byte, which needs no instruction to be had, and the three that bend it work on bytes. What a softmax
divides by is the sum of the same weights, so what counts is how far they are off beside each other: 0.22 % in
the root mean square, where the rounding of exact weights to bf16 makes 0.17 %; at most 1.3 units in the last
place. The cubic that halves what is more than rounding takes twice the time.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import BF16, I8, UI8, UI16, ElementType
from dialects import tensor
from passes.tensor_to_chip.constants import exp2_table
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed

BIAS, MANTISSA_BITS = 127, 7  # of bf16
WHOLE = 1 << 23  # from here on f32 is whole numbers, up to twice as much in steps of 1
STEP_BITS = 8
STEPS = 1 << STEP_BITS  # of a power of two
END = 259  # steps, where the bend ends; with this one and `BEND` the error is the least
CURVE_BITS = 7
BEND, BEND_BITS = 173, 10


@lowers(tensor.SoftmaxWeightsOp)
def softmax_weights(low: Lowering, op: tensor.SoftmaxWeightsOp) -> None:
    x, top, result = low.get(op.x), low.get(op.top), low.result(op)
    if op.y.type.element == BF16:
        least = float(tensor.SHOWN) if op.hiding is None else low.get(op.hiding)
        low.emit.repeat(bf16_powers, result, x, top, least, steps=op.steps)
    else:
        low.emit.repeat(powers, result, x, top, exp2_table(low), steps=op.steps)


def powers(emit: Emitter, result: Placed, x: Placed, top: Placed, table: Placed, steps: int) -> Placed:
    """2**((x - top) / steps) into result."""
    return emit.cast(result, emit.exp2(below(emit, x, top, steps), table))


@lowers(tensor.HidingOp)
def hiding(low: Lowering, op: tensor.HidingOp) -> None:
    """Of the first byte of bf16 all bits but the sign are 0 for 0, and for what is next to nothing."""
    first = bytes_of(low.get(op.x), UI8, 1)
    size = low.emit.ar("mul", low.emit.like(first, UI8), first, 2.0)
    low.emit.ar("adds", low.result(op), size, float(tensor.SHOWN), constant_type=I8)


def below(emit: Emitter, x: Placed, top: Placed, steps: int) -> Placed:
    """(x - top) / steps."""
    distance = emit.ar("sub", emit.like(x), x, top)
    return distance if steps == 1 else emit.ar("mul", emit.like(x), distance, 1 / steps)


def bf16_powers(
    emit: Emitter, result: Placed, x: Placed, top: Placed, least: Placed | float, steps: int
) -> Placed:
    """2**((x - top) / steps) into result, 0 where a sum's first byte is not above `least`: an instruction on
    f32, if x comes in `STEPS`, two on 16 bit, and four on 8.
    """
    if steps != STEPS:
        x, top = (emit.ar("mul", emit.like(each), each, STEPS / steps) for each in (x, top))
    zero = emit.ar("sub", emit.like(top), float(WHOLE + BIAS * STEPS), top)
    whole = emit.ar("add", emit.like(x), x, zero)
    place = bytes_of(whole, UI16, 0)
    bent = bend(emit, bytes_of(whole, UI8, 0))
    bits = emit.ar("subs", emit.like(x, UI16), place, bent, shift=MANTISSA_BITS - STEP_BITS, round=1)
    counts = emit.ar("select_gt", emit.like(x, UI8), bytes_of(whole, I8, 3), least, shift=1)
    return emit.ar("mul", replace(result, dtype=UI16), bits, counts)


def bend(emit: Emitter, fraction: Placed) -> Placed:
    """0.34 f (1 - f) of a fraction f, all in steps."""

    def combined(kind: str, a: Placed | float, b: Placed | float, **attrs: int) -> Placed:
        return emit.ar(kind, emit.like(fraction, UI8), a, b, **attrs)

    rest = combined("sub", float(END % STEPS), fraction)
    curve = combined("muls", fraction, rest, shift=-CURVE_BITS, round=1)
    return combined("muls", curve, float(BEND), shift=-BEND_BITS, round=1)


def bytes_of(x: Placed, dtype: ElementType, start: int) -> Placed:
    """A few bytes of each item, from the lowest but `start` on, seen as another type."""
    strides = tuple([x.dtype.bytes // dtype.bytes * stride for stride in x.strides])
    return replace(x, dtype=dtype, strides=strides, offset=x.offset + start)
