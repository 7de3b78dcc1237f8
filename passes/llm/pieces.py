"""What an op needs to make a piece of its result: a range along one axis, as one part of a net has it.

The rules are those of a table by op. What has none is computed whole, on every part, and cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol, TypeVar

from compiler.ir.core import Op, Value
from dialects import llm
from passes.ranges import Range

OpT = TypeVar("OpT", bound=Op)


class Maker(Protocol):
    """What makes the values of one part; see `passes.llm.partition.Part`."""

    def piece(self, value: Value, axis: int, cut: Range) -> Value:
        """The part's own copy of those items of a value of the whole net."""

    def whole(self, value: Value) -> Value:
        """The part's own copy of a value of the whole net."""

    def add(self, op: OpT) -> OpT:
        """An op of the part."""

    def remade(self, op: Op, operands: Sequence[Value], **changed: Any) -> Value:
        """The op on these operands, with the result's type that follows, and attributes that change."""


# ---- ops of whose operands some are cut as the result is, and the others are read whole ----


Axes = list[int | None]  # of each operand: where it is cut as the result is, None for not at all


def item_by_item(op: Op, axis: int) -> Axes | None:
    """Operands broadcast: an axis that one has not, or has once, serves all pieces."""
    rank, size = op.results[0].type.rank, op.results[0].type.shape[axis]
    found: Axes = []
    for value in op.operands:
        own = axis - (rank - value.type.rank)
        found.append(own if own >= 0 and value.type.shape[own] == size else None)
    return found


def norm(op: Op, axis: int) -> Axes | None:
    """Of all but the last axis, whose items depend on each other."""
    return None if axis == op.results[0].type.rank - 1 else item_by_item(op, axis)


def along_another(op: llm.SoftmaxOp | llm.MeanOp | llm.ReduceSumOp | llm.SliceOp, axis: int) -> Axes | None:
    return None if axis == op.axis else [axis]


def pad(op: llm.PadOp, axis: int) -> Axes | None:
    return None if axis == op.y.type.rank - 1 else [axis]


def rope(op: llm.RopeOp, axis: int) -> Axes | None:
    return [axis, None, None] if axis == 1 else None


def kv_concat(op: llm.KvConcatOp, axis: int) -> Axes | None:
    return [axis, axis] if axis == 1 else None


def projection(op: llm.LinearOp | llm.GatedLinearOp, axis: int) -> Axes | None:
    """Outputs are rows of the weights and of the biases."""
    if axis != op.y.type.rank - 1:
        return None
    residual = op.residual if isinstance(op, llm.LinearOp) else None
    return [None if value is op.x else axis if value is residual else 0 for value in op.operands]


def permute(op: llm.PermuteOp, axis: int) -> Axes | None:
    return [op.order[axis]]


def concat(op: llm.ConcatOp, axis: int) -> Axes | None:
    return None if axis == op.axis else [axis] * len(op.parts)


def put(op: llm.PutOp, axis: int) -> Axes | None:
    return None if axis == op.axis else [axis, axis]


AXES: dict[type[Op], Callable[[Any, int], Axes | None]] = {
    **dict.fromkeys(
        (
            llm.ActOp,
            llm.AddOp,
            llm.ClampOp,
            llm.DivOp,
            llm.LogicalNotOp,
            llm.MulOp,
            llm.NegOp,
            llm.PowOp,
            llm.RsqrtOp,
            llm.SoftcapOp,
            llm.SubOp,
            llm.SwigluOp,
            llm.WidenOp,
        ),
        item_by_item,
    ),
    llm.RmsNormOp: norm,
    llm.LayerNormOp: norm,
    llm.SoftmaxOp: along_another,
    llm.MeanOp: along_another,
    llm.ReduceSumOp: along_another,
    llm.SliceOp: along_another,
    llm.RopeOp: rope,
    llm.KvConcatOp: kv_concat,
    llm.LinearOp: projection,
    llm.GatedLinearOp: projection,
    llm.PadOp: pad,
    llm.PermuteOp: permute,
    llm.ConcatOp: concat,
    llm.PutOp: put,
}


# ---- ops whose operands are cut in other places than the result ----


def reshape(make: Maker, op: llm.ReshapeOp, axis: int, cut: Range) -> Value | None:
    """Where an axis of x, with those behind it, is this one with those behind it: heads, or their columns."""
    shape, before = op.shape, op.x.type.shape
    same = [i for i, size in enumerate(before) if size > 1 and prod(before[:i]) == prod(shape[:axis])]
    if not same or shape[axis] == 1:
        return None
    mine, theirs = prod(shape[axis + 1 :]), prod(before[same[0] + 1 :])
    if cut.start * mine % theirs or cut.stop * mine % theirs:
        return None
    x = make.piece(op.x, same[0], Range(cut.start * mine // theirs, cut.stop * mine // theirs))
    return make.remade(op, [x], shape=resized(shape, axis, cut.size))


def broadcast(make: Maker, op: llm.BroadcastOp, axis: int, cut: Range) -> Value | None:
    x = make.whole(op.x) if op.x.type.shape[axis] == 1 else make.piece(op.x, axis, cut)
    return make.remade(op, [x], shape=resized(op.shape, axis, cut.size))


def slice_(make: Maker, op: llm.SliceOp, axis: int, cut: Range) -> Value | None:
    if axis != op.axis or op.step != 1:
        return None
    return make.piece(op.x, axis, cut.moved(op.start))


def join(make: Maker, op: llm.ConcatOp, axis: int, cut: Range) -> Value | None:
    if axis != op.axis:
        return None
    parts = [make.piece(part, axis, some) for part, some in shares(op.parts, axis, cut)]
    return parts[0] if len(parts) == 1 else make.add(llm.ConcatOp(*parts, axis=axis, loc=op.loc)).y


def shares(parts: Sequence[Value], axis: int, cut: Range) -> list[tuple[Value, Range]]:
    """Those of the parts that a range of all of them is in, with what of each."""
    found, first = [], 0
    for part in parts:
        size = part.type.shape[axis]
        some = cut.moved(-first).within(Range(0, size))
        found += [(part, some)] if some.size else []
        first += size
    return found


def attention(make: Maker, op: llm.AttentionOp, axis: int, cut: Range) -> Value | None:
    """Query heads, with the KV heads that they read; a KV head at the border is read by both neighbours."""
    if axis != 2:
        return None
    kv, groups = kv_heads_of(op, cut)
    k, v = (make.piece(value, 1, kv) for value in (op.k, op.v))
    mask = None if op.mask is None else make.whole(op.mask)
    sinks = None if op.sinks is None else make.piece(op.sinks, 0, cut)
    settings = {**op.attributes, "groups": groups if len(set(groups)) > 1 else ()}
    return make.add(llm.AttentionOp(make.piece(op.q, 1, cut), k, v, mask, sinks, loc=op.loc, **settings)).y


def kv_heads_of(op: llm.AttentionOp, queries: Range) -> tuple[Range, tuple[int, ...]]:
    """The KV heads that some query heads read, and how many of these read each."""
    first, counts = 0, []
    for count in op.heads_of:
        counts.append(queries.within(Range(first, first + count)).size)
        first += count
    used = [head for head, count in enumerate(counts) if count]
    return Range(used[0], used[-1] + 1), tuple(counts[used[0] : used[-1] + 1])


def concat_weights(make: Maker, op: llm.ConcatWeightsOp, axis: int, cut: Range) -> Value | None:
    if axis == 0:
        parts = [make.piece(part, axis, some) for part, some in shares(op.weights, axis, cut)]
    else:
        parts = [make.piece(part, axis, cut) for part in op.weights]
    return parts[0] if len(parts) == 1 else make.add(llm.ConcatWeightsOp(*parts, loc=op.loc)).y


def weight(make: Maker, op: llm.WeightOp | llm.SliceWeightsOp, axis: int, cut: Range) -> Value:
    whole = make.whole(op.y)
    part = llm.SliceWeightsOp(whole, axis=axis, start=cut.start, stop=cut.stop, loc=op.loc)
    return make.add(part).y


def resized(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


RULES: dict[type[Op], list[Callable[[Any, Any, int, Range], Value | None]]] = {
    llm.ReshapeOp: [reshape],
    llm.BroadcastOp: [broadcast],
    llm.SliceOp: [slice_],
    llm.ConcatOp: [join],
    llm.AttentionOp: [attention],
    llm.ConcatWeightsOp: [concat_weights],
    llm.SliceWeightsOp: [weight],
    llm.WeightOp: [weight],
}


def piece_of(make: Maker, op: Op, axis: int, cut: Range) -> Value | None:
    """A piece of the only result of an op, of no more than it takes; None where no rule says how."""
    for rule in RULES.get(type(op), ()):
        if (found := rule(make, op, axis, cut)) is not None:
            return found
    find = AXES.get(type(op))
    axes = find(op, axis) if find is not None else None
    if axes is None:
        return None
    pairs = zip(op.operands, axes, strict=True)
    return make.remade(op, [make.whole(x) if own is None else make.piece(x, own, cut) for x, own in pairs])
