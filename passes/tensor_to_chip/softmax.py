"""Weights of a softmax, powers of two of 16 bit: for bf16 in fixed point, by integers of 16 bit.

Most of the vector work of attention is here, and items of 16 bit take half the time of f32. With x = n + f, n
whole and 0 <= f < 1, the bits of bf16 2**x are

    128 (127 + x) - 128 (1 + f - 2**f),    and    1 + f - 2**f = f (1 - f) (f + 5.08) / 16, nearly.

So ui16 holds 127 + x in steps of 1 / 512: all exponents that bf16 has, and what is below, as masked scores
are, saturates at 0, whose power is 0. With 2600 / 512 for the constant, the cubic's mean square error is the
least of all that need one constant beside the shift. Against 2**x: at most 0.82 units in the last place off,
0.313 in the root mean square, and 4e-5 of the weight in the mean; rounding alone makes 0.5, 0.289 and 0.
"""

from __future__ import annotations

from dataclasses import replace

from compiler.ir.types import BF16, UI16
from dialects import tensor
from passes.tensor_to_chip.constants import exp2_table
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed

BIAS, MANTISSA_BITS = 127, 7  # of bf16
STEP_BITS = 9
STEPS = 1 << STEP_BITS  # of a power of two
BEND = 2600  # steps; of all whole numbers that with the least mean square error
BEND_SHIFT = 2 * STEP_BITS + 4


@lowers(tensor.SoftmaxWeightsOp)
def softmax_weights(low: Lowering, op: tensor.SoftmaxWeightsOp) -> None:
    x, top, result = low.get(op.x), low.get(op.top), low.result(op)
    if op.y.type.element == BF16:
        bf16_powers(low.emit, result, x, top, op.steps)
    else:
        low.emit.cast(result, low.emit.exp2(below(low.emit, x, top, op.steps), exp2_table(low)))


def below(emit: Emitter, x: Placed, top: Placed, steps: int) -> Placed:
    """(x - top) / steps."""
    distance = emit.ar("sub", emit.like(x), x, top)
    return distance if steps == 1 else emit.ar("mul", emit.like(x), distance, 1 / steps)


def bf16_powers(emit: Emitter, result: Placed, x: Placed, top: Placed, steps: int) -> None:
    """2**((x - top) / steps) into result: two instructions on f32, if x comes in `STEPS`, six on 16 bit."""
    if steps != STEPS:
        x, top = (emit.ar("mul", emit.like(each), each, STEPS / steps) for each in (x, top))
    zero = emit.ar("sub", emit.like(top), float(BIAS * STEPS), top)
    place = emit.cast(emit.like(x, UI16), emit.ar("add", emit.like(x), x, zero))
    bits = replace(result, dtype=UI16)
    emit.ar("subs", bits, place, bend(emit, place), shift=MANTISSA_BITS - STEP_BITS, round=1)


def bend(emit: Emitter, place: Placed) -> Placed:
    """f (1 - f) (f + BEND / STEPS) / 16 of the fraction f of a place, all in steps."""

    def combined(kind: str, a: Placed | float, b: Placed | float, **attrs: int) -> Placed:
        return emit.ar(kind, emit.like(place, UI16), a, b, **attrs)

    fraction = combined("and", place, float(STEPS - 1))
    rest = combined("sub", float(STEPS), fraction)
    slope = combined("add", fraction, float(BEND))
    return combined("muls", combined("muls", fraction, rest), slope, shift=-BEND_SHIFT, round=1)
