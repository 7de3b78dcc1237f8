"""Probabilities of candidates on the chip, by the same instructions in every lane."""

from __future__ import annotations

from compiler.ir.types import F32
from dialects import chip, tensor
from dialects.weights import Iota
from passes.tensor_to_chip.constants import broadcast, exp2_table
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed

LOG2_E = 1.4426950408889634
LOWEST_TEMPERATURE = 2.0**-20  # at which the first candidate is left, unless another is as likely
ABOVE = 1 + 2.0**-20  # a sum that is above top_p by less is not
FAR = -1.0e9  # from the first candidate: its power of two is 0


@lowers(tensor.NucleusOp)
def nucleus(low: Lowering, op: tensor.NucleusOp) -> None:
    emit, (x, temperature, top_k, top_p) = low.emit, (low.get(value) for value in op.operands)
    e = powers(low, beyond_moved_away(low, distances(emit, x, temperature), top_k))
    sums, total = running_sums(emit, e), emit.pool("avg", e)
    limit = emit.ar("mul", emit.like(top_p), emit.ar("mul", emit.like(top_p), top_p, ABOVE), total)
    kept = below(emit, sums, limit, e)
    kept_first, first = (part.slice((0, 0), (1, op.least)) for part in (kept, e))
    emit.cast(kept_first, first)
    rest = emit.pool("avg", kept)
    inverse = emit.ar("div", emit.like(rest), 1.0, rest, round=2)
    emit.ar("mul", low.result(op), kept, inverse)


def distances(emit: Emitter, x: Placed, temperature: Placed) -> Placed:
    """(x - the first) / temperature, none above 0."""
    divisor = emit.ar("max", emit.like(temperature), temperature, LOWEST_TEMPERATURE)
    inverse = emit.ar("div", emit.like(divisor), 1.0, divisor, round=2)
    far = emit.ar("sub", emit.like(x), x, x.slice((0, 0), (1, 1)))
    return emit.ar("mul", emit.like(x), far, inverse)


def beyond_moved_away(low: Lowering, x: Placed, top_k: Placed) -> Placed:
    """x, with FAR added to what is not among the first `top_k`, and more to what is farther behind."""
    emit, count = low.emit, x.shape[1]
    places = broadcast(low, Iota(count, 1.0), count)
    last = emit.ar("sub", emit.like(top_k), top_k, 1.0)
    behind = emit.ar("max", emit.like(x), emit.ar("sub", emit.like(x), places, last), 0.0)
    return emit.ar("add", emit.like(x), x, emit.ar("mul", emit.like(x), behind, FAR))


def powers(low: Lowering, x: Placed) -> Placed:
    """e**x, for x <= 0."""
    return low.emit.exp2(low.emit.ar("mul", low.emit.like(x), x, LOG2_E), exp2_table(low))


def running_sums(emit: Emitter, x: Placed) -> Placed:
    """Of each place, the sum up to it: sums of 2 neighbours, then of 4, 8, ..."""
    count, step = x.shape[1], 1
    while step < count:
        sums = emit.like(x)
        emit.cast(sums.slice((0, 0), (1, step)), x.slice((0, 0), (1, step)))
        later, earlier = (x.slice((0, start), (1, count - step)) for start in (step, 0))
        emit.ar("add", sums.slice((0, step), (1, count - step)), later, earlier)
        x, step = sums, 2 * step
    return x


def below(emit: Emitter, x: Placed, limit: Placed, then: Placed) -> Placed:
    """`then` where x is below the one limit, else 0."""
    res = emit.like(x)
    shape, _, _ = emit.aligned(x)
    emit.add(
        chip.SelectOp(
            res.buffer,
            x.buffer,
            limit.buffer,
            then.buffer,
            kind="sel_lt",
            shape=shape,
            res=res.view(()),
            opd0=x.view(()),
            opd1=limit.view((0, 0, 0, 0)),
            opd2=then.view(()),
            opd3=chip.constant(0.0, F32),
        )
    )
    return res
