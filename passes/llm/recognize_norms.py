"""Root mean square and layer norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Pattern, Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.llm.matching import both_orders, last_axis
from passes.manager import Pass


@rewrite(llm.MulOp)
def find_rms_norm(op: llm.MulOp, rw: Rewriter) -> None:
    """mul(x, rsqrt(mean(x**2) + eps)) -> rms_norm(x), the mean over the last axis."""
    for x, factor in both_orders(op):
        rsqrt = factor.defining(llm.RsqrtOp)
        eps = mean_square_eps(rsqrt.x, x) if rsqrt else None
        if eps is not None:
            rw.replace(op, llm.RmsNormOp(x, eps=eps, loc=op.loc))
            return


def mean_square_eps(value: Value, x: Value) -> float | None:
    """eps, if the value is mean(x**2) + eps over the last axis of x."""
    add = value.defining(llm.AddOp)
    mean = add.lhs.defining(llm.MeanOp) if add else None
    square = mean.x.defining(llm.PowOp) if mean else None
    if add is None or mean is None or square is None:
        return None
    if square.x is not x or square.exponent != 2.0 or mean.axis != last_axis(x):
        return None
    return add.value


@rewrite(llm.MulOp)
def give_rms_norm_its_weight(op: llm.MulOp, rw: Rewriter) -> None:
    """mul(rms_norm(x), w) -> rms_norm(x, w), and mul(rms_norm(x), w + 1) -> rms_norm(x, w) {offset = 1}."""
    for value, weight in both_orders(op):
        norm = value.defining(llm.RmsNormOp)
        if norm is None or norm.weight is not None or not norm.y.has_one_use():
            continue
        if not is_row_for(weight, norm):
            continue
        plus = weight.defining(llm.AddOp)
        offset = plus.value if plus is not None and plus.value is not None else 0.0
        source = plus.lhs if plus is not None and offset else weight
        loc = fused(norm.loc, op.loc)
        rw.replace(op, llm.RmsNormOp(norm.x, source, eps=norm.eps, offset=offset, loc=loc))
        return


def is_row_for(weight: Value, norm: llm.RmsNormOp | llm.LayerNormOp) -> bool:
    """Whether the value is a weight of the last axis, or of heads and the last axis."""
    shape = weight.type.shape
    return len(shape) in (1, 2) and llm.is_weight(weight) and shape == norm.x.type.shape[-len(shape) :]


@rewrite(llm.RmsNormOp)
def find_layer_norm(op: llm.RmsNormOp, rw: Rewriter) -> None:
    """rms_norm(x - mean(x), w) -> layer_norm(x, w)."""
    centred = op.x.defining(llm.SubOp)
    mean = centred.rhs.defining(llm.MeanOp) if centred and centred.rhs else None
    if centred is None or mean is None or op.offset:
        return
    if mean.x is not centred.lhs or mean.axis != last_axis(mean.x):
        return
    rw.replace(op, llm.LayerNormOp(mean.x, op.weight, eps=op.eps, loc=op.loc))


@rewrite(llm.MulOp)
def give_layer_norm_its_weight(op: llm.MulOp, rw: Rewriter) -> None:
    """mul(layer_norm(x), w) -> layer_norm(x, w), w of one or more last axes of x."""
    for value, weight in both_orders(op):
        norm = value.defining(llm.LayerNormOp)
        if norm is None or norm.weight is not None or norm.bias is not None or not norm.y.has_one_use():
            continue
        if is_row_for(weight, norm):
            loc = fused(norm.loc, op.loc)
            rw.replace(op, llm.LayerNormOp(norm.x, weight, eps=norm.eps, loc=loc))
            return


@rewrite(llm.ConcatOp)
def join_norms_of_heads(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(layer_norm(head i of x, w_i), ...) -> layer_norm(x, [w_0, w_1, ..]), of heads [1, h, S, d]."""
    found = [part.defining(llm.LayerNormOp) for part in op.parts]
    norms = [norm for norm in found if norm is not None]
    x = all_heads([norm.x for norm in norms]) if op.axis == 1 and len(norms) == len(found) else None
    weights, biases = [norm.weight for norm in norms], [norm.bias for norm in norms]
    if x is None or len({norm.eps for norm in norms}) > 1 or not (alike(weights) and alike(biases)):
        return
    loc = fused(*(norm.loc for norm in norms))
    weight, bias = (stacked(rows, op, rw) for rows in (weights, biases))
    turned = rw.insert_before(op, llm.PermuteOp(x, order=HEADS_LAST, loc=loc)).y
    norm = rw.insert_before(op, llm.LayerNormOp(turned, weight, bias, eps=norms[0].eps, loc=loc)).y
    rw.replace(op, llm.PermuteOp(norm, order=HEADS_LAST, loc=op.loc))


def all_heads(parts: Sequence[Value]) -> Value | None:
    """The value [1, heads, S, d] that the parts are the heads of, one by one and in order."""
    slices = [part.defining(llm.SliceOp) for part in parts]
    ranges = [(cut.x, cut.axis, cut.start, cut.stop) if cut else None for cut in slices]
    x = slices[0].x if slices[0] else None
    if x is None or len(x.type.shape) != 4 or x.type.shape[1] != len(parts):
        return None
    return x if ranges == [(x, 1, i, i + 1) for i in range(len(parts))] else None


def alike(rows: Sequence[Value | None]) -> bool:
    """Whether all are weights, or none is there."""
    return all(row is None for row in rows) or all(row is not None and llm.is_weight(row) for row in rows)


def stacked(rows: Sequence[Value | None], anchor: llm.ConcatOp, rw: Rewriter) -> Value | None:
    """Weights [d] of every head as [heads, d]."""
    given = [row for row in rows if row is not None]
    if not given:
        return None
    joined = rw.insert_before(anchor, llm.ConcatWeightsOp(*given, loc=anchor.loc)).y
    shape = (len(given), given[0].type.shape[0])
    return rw.insert_before(anchor, llm.ReshapeOp(joined, shape=shape, loc=anchor.loc)).y


HEADS_LAST = (0, 2, 1, 3)  # from [1, heads, S, d] to [1, S, heads, d], or back
PATTERNS: list[Pattern] = [
    join_norms_of_heads,
    find_rms_norm,
    give_rms_norm_its_weight,
    find_layer_norm,
    give_layer_norm_its_weight,
]


@dataclass(frozen=True)
class RecognizeNorms(Pass):
    """llm -> llm. Means and reciprocal roots become norms, with their weights.

    What is computed is matched, never a name. Expects canonical IR, in which a value is computed once.
    """

    name = "recognize-norms"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, PATTERNS)
