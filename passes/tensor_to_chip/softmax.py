"""Weights of a softmax, powers of two of 16 bit: for bf16 in fixed point, by integers of 8 and 16 bit.

Most of the vector work of attention is here, and items of 16 bit take half the time of f32, those of 8 bit a
quarter. With x = n + f, n whole and 0 <= f < 1, the bits of bf16 2**x are

    128 (127 + x) - 128 (1 + f - 2**f),    and    1 + f - 2**f = 0.34 f (1 - f), nearly.

So ui16 holds 127 + x in steps of 1 / 256: all exponents that bf16 has, and what is below, as masked scores
are, saturates at 0, whose power is 0. The fraction is its low byte, which needs no instruction to be had, and
the three that bend it work on bytes. What a softmax divides by is the sum of the same weights, so what counts
is how far they are off beside each other: 0.22 % in the root mean square, where the rounding of exact weights
to bf16 makes 0.17 %; at most 1.3 units in the last place. The cubic that halves what is more than rounding
takes twice the time.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import BF16, UI8, UI16
from dialects import tensor
from passes.tensor_to_chip.constants import exp2_table
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed

BIAS, MANTISSA_BITS = 127, 7  # of bf16
STEP_BITS = 8
STEPS = 1 << STEP_BITS  # of a power of two
END = 259  # steps, where the bend ends; with this one and `BEND` the error is the least
CURVE_BITS = 7
ALL_BITS = float(0xFFFF)
BEND, BEND_BITS = 173, 10


@lowers(tensor.SoftmaxWeightsOp)
def softmax_weights(low: Lowering, op: tensor.SoftmaxWeightsOp) -> None:
    x, top, result = low.get(op.x), low.get(op.top), low.result(op)
    if op.y.type.element == BF16:
        low.emit.repeat(bf16_powers, result, x, top, steps=op.steps)
    else:
        low.emit.repeat(powers, result, x, top, exp2_table(low), steps=op.steps)


def powers(emit: Emitter, result: Placed, x: Placed, top: Placed, table: Placed, steps: int) -> Placed:
    """2**((x - top) / steps) into result."""
    return emit.cast(result, emit.exp2(below(emit, x, top, steps), table))


@lowers(tensor.WhereZeroOp)
def where_zero(low: Lowering, op: tensor.WhereZeroOp) -> None:
    """Without the sign, all that is not 0 saturates times the largest number."""
    emit, x = low.emit, replace(low.get(op.x), dtype=UI16)
    size = emit.ar("mul", emit.like(x, UI16), x, 2.0)
    other = emit.ar("muls", emit.like(x, UI16), size, ALL_BITS)
    emit.ar("sub", low.result(op), ALL_BITS, other)


@lowers(tensor.KeepOp)
def keep(low: Lowering, op: tensor.KeepOp) -> None:
    x, result = (replace(each, dtype=UI16) for each in (low.get(op.x), low.result(op)))
    low.emit.ar("and", result, x, low.get(op.where))


def below(emit: Emitter, x: Placed, top: Placed, steps: int) -> Placed:
    """(x - top) / steps."""
    distance = emit.ar("sub", emit.like(x), x, top)
    return distance if steps == 1 else emit.ar("mul", emit.like(x), distance, 1 / steps)


def bf16_powers(emit: Emitter, result: Placed, x: Placed, top: Placed, steps: int) -> Placed:
    """2**((x - top) / steps) into result: two instructions on f32, if x comes in `STEPS`, one on 16 bit, and
    three on 8.
    """
    if steps != STEPS:
        x, top = (emit.ar("mul", emit.like(each), each, STEPS / steps) for each in (x, top))
    zero = emit.ar("sub", emit.like(top), float(BIAS * STEPS), top)
    place = emit.cast(emit.like(x, UI16), emit.ar("add", emit.like(x), x, zero))
    bits = replace(result, dtype=UI16)
    return emit.ar("subs", bits, place, bend(emit, place), shift=MANTISSA_BITS - STEP_BITS, round=1)


def bend(emit: Emitter, place: Placed) -> Placed:
    """0.34 f (1 - f) of the fraction f of a place, all in steps."""
    fraction = replace(place, dtype=UI8, strides=tuple([2 * stride for stride in place.strides]))

    def combined(kind: str, a: Placed | float, b: Placed | float, **attrs: int) -> Placed:
        return emit.ar(kind, emit.like(place, UI8), a, b, **attrs)

    rest = combined("sub", float(END % STEPS), fraction)
    curve = combined("muls", fraction, rest, shift=-CURVE_BITS, round=1)
    return combined("muls", curve, float(BEND), shift=-BEND_BITS, round=1)
