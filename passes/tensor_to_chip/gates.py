"""Gates and activations that are rounded to bf16: fewer instructions than exact ones take, most narrow.

silu(g) = g / (1 + e**-g) needs a power of two and a reciprocal. That of a bf16 result, which is off by
0.17 % in the root mean square, may be off by 0.12 %, where f16 needs all of `arithmetic.gate`.

The power 2**x, x = n + f, is made as in `softmax.py`: bits of 1 + f less a bend, here a cubic one, in steps
of 1 / 512. As a signed number of 16 bit x saturates at 2**-64 and 2**64, where the gate is as good as g or
0. The last sum of 16 bit shifts its result to where f32 has its exponent. The reciprocal is a guess from the
bits that is off by at most 6 %, and one step of Newton's, which squares that; with 2.0015 for its 2 the
error has either sign.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import F32, I16, I32, UI8, UI16
from dialects import tensor
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed

LOG2_E = 1.4426950408889634
BIAS, MANTISSA_BITS = 127, 23  # of f32
STEP_BITS = 9
STEPS = 1 << STEP_BITS  # of a power of two
UNIT = -LOG2_E * STEPS  # steps of e**-g
CURVE_BITS, SLOPE, SLOPE_BITS, BEND_BITS = 6, 1280, 3, 10  # of those that fit bytes, with the least error
GUESS = float(0x7EF40000)
TWO = 2.0015


@lowers(tensor.Bf16GateOp)
def bf16_gate(low: Lowering, op: tensor.Bf16GateOp) -> None:
    g, up = low.get(op.gate), low.get(op.up)
    made = low.emit.repeat(silu, g)
    low.emit.ar("mul", low.result(op), made, up)


def silu(emit: Emitter, g: Placed) -> Placed:
    return emit.ar("mul", emit.like(g), g, share(emit, scaled(emit, g, UNIT)))


@lowers(tensor.Bf16SwishOp)
def bf16_swish(low: Lowering, op: tensor.Bf16SwishOp) -> None:
    x = low.get(op.x)
    made = low.emit.repeat(swish_share, x, slope=op.slope, cubic=op.cubic)
    low.emit.ar("mul", low.result(op), x, made)


def swish_share(emit: Emitter, x: Placed, slope: float, cubic: float) -> Placed:
    """1 / (1 + e**-(slope x + cubic x**3))."""
    if not cubic:
        return share(emit, scaled(emit, x, UNIT * slope))
    square = scaled(emit, emit.ar("mul", emit.like(x), x, x), UNIT * cubic)
    steps = emit.ar("mul", emit.like(x), emit.ar("add", emit.like(x), square, UNIT * slope), x)
    return share(emit, steps)


def share(emit: Emitter, steps: Placed) -> Placed:
    """1 / (1 + 2**(x / STEPS))."""
    return reciprocal(emit, emit.ar("add", emit.like(steps), power(emit, steps), 1.0))


def scaled(emit: Emitter, x: Placed, factor: float) -> Placed:
    return emit.ar("mul", emit.like(x), x, factor)


def power(emit: Emitter, steps: Placed) -> Placed:
    """2**(x / STEPS) in f32."""
    place = emit.cast(emit.like(steps, I16), steps)
    bias = float(BIAS * STEPS)
    rest = emit.ar("sub", emit.like(steps, UI16), bias, bend(emit, place), constant_type=UI16)
    bits = emit.ar("adds", emit.like(steps, I32), place, rest, shift=MANTISSA_BITS - STEP_BITS)
    return replace(bits, dtype=F32)


def bend(emit: Emitter, place: Placed) -> Placed:
    """f (1 - f) (f + 5) / 16 of the fraction f of a place, in steps."""

    def combined(kind: str, a: Placed | float, b: Placed | float, **attrs: object) -> Placed:
        return emit.ar(kind, emit.like(place, UI8), a, b, **attrs)

    fraction = fraction_of(emit, place)
    rest = combined("sub", 0.0, fraction)
    curve = combined("muls", fraction, rest, shift=-CURVE_BITS, round=1)
    slope = combined("adds", fraction, float(SLOPE), constant_type=UI16, shift=-SLOPE_BITS, round=1)
    return combined("muls", curve, slope, shift=-BEND_BITS, round=1)


def fraction_of(emit: Emitter, place: Placed) -> Placed:
    """The leading eight of the nine bits of a fraction: the upper bytes of what wraps at a whole power."""
    wrapped = emit.ar("mul", emit.like(place, UI16), place, float(1 << (16 - STEP_BITS)))
    strides = tuple([2 * stride for stride in wrapped.strides])
    return replace(wrapped, dtype=UI8, strides=strides, offset=wrapped.offset + 1)


def reciprocal(emit: Emitter, x: Placed) -> Placed:
    """1 / x for 1 <= x < 2**126, to 0.16 %."""
    guess = emit.ar("sub", emit.like(x, I32), GUESS, replace(x, dtype=I32), constant_type=I32)
    y = replace(guess, dtype=F32)
    rest = emit.ar("sub", emit.like(x), TWO, emit.ar("mul", emit.like(x), x, y))
    return emit.ar("mul", emit.like(x), y, rest)
