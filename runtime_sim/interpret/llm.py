"""What each llm op computes, in numpy: one function per op, named as in dialects/llm.py.

Every rule works in float32 and rounds once, to the element type of its result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.ir.types import TensorType
from compiler.weights.scheme import scheme_of
from dialects import llm
from dialects.weights import view_of_name
from runtime_sim.arrays import Array
from runtime_sim.interpret.activations import ACTIVATIONS
from runtime_sim.interpret.codes import decoded
from runtime_sim.interpret.nucleus import nucleus_of
from runtime_sim.interpret.rules import Data, exchanges, simulates, supplies

HIDDEN = np.float32(-9984)  # what a client adds at least to the scores of keys that it hides


def wide(x: Array) -> Array:
    return x.astype(np.float32, copy=False)


def rounded(x: Array, like: TensorType) -> Array:
    return x.astype(like.element.numpy, copy=False)


# ---- named data ----


@supplies(llm.WeightOp)
def weight(op: llm.WeightOp, data: Data) -> Array:
    """As the program stores it: 16 bits each, or decoded from codes."""
    scheme = scheme_of(op.y.type)
    if scheme is not None:
        return decoded(data.codes(op.name, scheme), scheme, op.y.type.element).reshape(op.y.type.shape)
    view = view_of_name(op.name)
    return rounded(view.of(data.weights(view.tensor)), op.y.type)


@supplies(llm.TableOp)
def table(op: llm.TableOp, data: Data) -> Array:
    return rounded(data.tables[op.name].reshape(op.y.type.shape), op.y.type)


@supplies(llm.IndicesOp)
def indices(op: llm.IndicesOp, data: Data) -> Array:
    return data.weights(op.name).astype(np.int32)


@simulates(llm.ConcatWeightsOp)
def concat_weights(op: llm.ConcatWeightsOp, weights: list[Array]) -> Array:
    return np.concatenate(weights)


@simulates(llm.SliceWeightsOp)
def slice_weights(op: llm.SliceWeightsOp, weight: Array) -> Array:
    return weight[(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)]


@simulates(llm.GatherRowsOp)
def gather_rows(op: llm.GatherRowsOp, table: Array, ids: Array) -> Array:
    if op.streams is None:
        return table[ids]
    of_column = np.repeat(op.streams.numbers, op.streams.widths)
    rows = np.moveaxis(ids, op.streams.axis, -1)[:, of_column]
    return table[rows, np.arange(table.shape[1])][None]


# ---- embedding, linear, matmul ----


@simulates(llm.EmbeddingOp)
def embedding(op: llm.EmbeddingOp, ids: Array, table: Array) -> Array:
    return rounded(wide(table[ids]) * np.float32(op.scale), op.y.type)


@simulates(llm.LinearOp)
def linear(op: llm.LinearOp, x: Array, weight: Array, bias: Array | None, residual: Array | None) -> Array:
    y = project(x, weight, bias)
    if residual is not None:
        y += wide(residual)
    return rounded(y, op.y.type)


@simulates(llm.GatedLinearOp)
def gated_linear(
    op: llm.GatedLinearOp,
    x: Array,
    gate_weight: Array,
    up_weight: Array,
    gate_bias: Array | None,
    up_bias: Array | None,
) -> Array:
    gate = project(x, gate_weight, gate_bias)
    up = project(x, up_weight, up_bias)
    return rounded(ACTIVATIONS[op.act](gate) * up, op.y.type)


def project(x: Array, weight: Array, bias: Array | None) -> Array:
    """x @ weight.T + bias in float32."""
    y: Array = wide(x) @ wide(weight).T
    return y if bias is None else y + wide(bias)


@simulates(llm.MatmulOp)
def matmul(op: llm.MatmulOp, a: Array, b: Array) -> Array:
    return rounded(wide(a) @ wide(b), op.y.type)


# ---- norms ----


@simulates(llm.RmsNormOp)
def rms_norm(op: llm.RmsNormOp, x: Array, weight: Array | None) -> Array:
    y = normalized(wide(x), op.eps)
    if weight is not None:
        y = y * (wide(weight) + np.float32(op.offset))
    return rounded(y, op.y.type)


@simulates(llm.LayerNormOp)
def layer_norm(op: llm.LayerNormOp, x: Array, weight: Array | None, bias: Array | None) -> Array:
    x32 = wide(x)
    y = normalized(x32 - x32.mean(axis=-1, keepdims=True), op.eps)
    if weight is not None:
        y = y * wide(weight)
    if bias is not None:
        y = y + wide(bias)
    return rounded(y, op.y.type)


def normalized(x: Array, eps: float) -> Array:
    """x scaled to unit mean square over its last axis."""
    y: Array = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))
    return y


# ---- attention ----


@simulates(llm.RopeOp)
def rope(op: llm.RopeOp, x: Array, cos: Array, sin: Array) -> Array:
    rotated, rest = wide(x[..., : op.rotary_dim]), wide(x[..., op.rotary_dim :])
    y = ROPES[op.mode](rotated, wide(cos), wide(sin))
    return rounded(np.concatenate([y, rest], axis=-1), op.y.type)


def rope_half(x: Array, cos: Array, sin: Array) -> Array:
    low, high = np.split(x, 2, axis=-1)
    y: Array = x * cos + np.concatenate([-high, low], axis=-1) * sin
    return y


def rope_interleaved(x: Array, cos: Array, sin: Array) -> Array:
    partner = np.stack([-x[..., 1::2], x[..., 0::2]], axis=-1).reshape(x.shape)
    y: Array = x * cos + partner * sin
    return y


def rope_half_tables(x: Array, cos: Array, sin: Array) -> Array:
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def rope_pairs_to_halves(x: Array, cos: Array, sin: Array) -> Array:
    parted = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
    return (rope_half if cos.shape[-1] == x.shape[-1] else rope_half_tables)(parted, cos, sin)


ROPES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "half": rope_half,
    "interleaved": rope_interleaved,
    "half_tables": rope_half_tables,
    "pairs_to_halves": rope_pairs_to_halves,
}


@simulates(llm.KvConcatOp)
def kv_concat(op: llm.KvConcatOp, history: Array, new: Array) -> Array:
    return np.concatenate([history, new], axis=2)


@simulates(llm.HideBeforeOp)
def hide_before(op: llm.HideBeforeOp, mask: Array, first: Array) -> Array:
    columns = np.arange(mask.shape[-1], dtype=np.float32)
    return wide(mask) + HIDDEN * np.maximum(first[:, None] - columns, 0)


@simulates(llm.AttentionOp)
def attention(
    op: llm.AttentionOp, q: Array, k: Array, v: Array, mask: Array | None, sinks: Array | None
) -> Array:
    heads_of = op.groups or q.shape[1] // k.shape[1]
    keys, values = (np.repeat(wide(x), heads_of, axis=1) for x in (k, v))
    scores = (wide(q) @ keys.transpose(0, 1, 3, 2)) * np.float32(op.scale)
    if op.softcap:
        scores = np.tanh(scores / np.float32(op.softcap)) * np.float32(op.softcap)
    scores = scores + visible_only(op.visible, None if mask is None else wide(mask), *scores.shape[2:])
    p = softmax_with_sinks(scores, None if sinks is None else wide(sinks))
    return rounded((p @ values).transpose(0, 2, 1, 3), op.y.type)


def visible_only(visible: llm.Visible, mask: Array | None, queries: int, keys: int) -> Array:
    """What is added to the scores: the mask, and at keys that are not visible at least what hides them.

    A client hides all keys of the queries that it does not use. Such a query takes the mean of whatever is
    there, visible or not: nobody reads it, and it may be any finite number; see `llm.attention`.
    """
    seen = visible_keys(visible, queries, keys)
    if mask is None:
        return np.where(seen, np.float32(0), np.float32(-np.inf))
    return np.where(seen, mask, np.minimum(mask, HIDDEN))


def visible_keys(visible: llm.Visible, queries: int, keys: int) -> Array:
    """[queries, keys] bool; the queries are at the last positions of the keys."""
    position, key = np.arange(keys - queries, keys)[:, None], np.arange(keys)
    seen: Array = key <= (keys if visible.sees_later else position)
    if visible.kind in ("window", "band"):
        seen = seen & (key > position - visible.size)
    if visible.kind == "band":
        seen = seen & (key < position + visible.size)
    if visible.kind == "chunk":
        seen = seen & (key // visible.size == position // visible.size)
    return np.broadcast_to(seen, (queries, keys))


def softmax_with_sinks(scores: Array, sinks: Array | None) -> Array:
    """Over the last axis of [1, heads, S, T]; a sink [heads] takes part in the denominator only."""
    if sinks is None:
        return softmax_over(scores, -1)
    column = np.broadcast_to(sinks[None, :, None, None], (*scores.shape[:-1], 1))
    return softmax_over(np.concatenate([scores, column], axis=-1), -1)[..., :-1]


def softmax_over(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y: Array = e / e.sum(axis=axis, keepdims=True)
    return y


# ---- activations and arithmetic ----


@simulates(llm.ActOp)
def act(op: llm.ActOp, x: Array) -> Array:
    return rounded(ACTIVATIONS[op.kind](wide(x)), op.y.type)


@simulates(llm.SwigluOp)
def swiglu(op: llm.SwigluOp, gate: Array, up: Array) -> Array:
    return rounded(ACTIVATIONS[op.act](wide(gate)) * wide(up), op.y.type)


def second(rhs: Array | None, value: float | None) -> Array:
    return wide(rhs) if rhs is not None else np.asarray(value, np.float32)


@simulates(llm.AddOp)
def add(op: llm.AddOp, lhs: Array, rhs: Array | None) -> Array:
    return rounded(wide(lhs) + second(rhs, op.value), op.y.type)


@simulates(llm.SubOp)
def sub(op: llm.SubOp, lhs: Array, rhs: Array | None) -> Array:
    return rounded(wide(lhs) - second(rhs, op.value), op.y.type)


@simulates(llm.MulOp)
def mul(op: llm.MulOp, lhs: Array, rhs: Array | None) -> Array:
    return rounded(wide(lhs) * second(rhs, op.value), op.y.type)


@simulates(llm.DivOp)
def div(op: llm.DivOp, lhs: Array, rhs: Array | None) -> Array:
    return rounded(wide(lhs) / second(rhs, op.value), op.y.type)


@simulates(llm.NegOp)
def neg(op: llm.NegOp, x: Array) -> Array:
    return -x


@simulates(llm.RsqrtOp)
def rsqrt(op: llm.RsqrtOp, x: Array) -> Array:
    return rounded(np.float32(1) / np.sqrt(wide(x)), op.y.type)


@simulates(llm.PowOp)
def pow(op: llm.PowOp, x: Array) -> Array:
    return rounded(np.power(wide(x), np.float32(op.exponent)), op.y.type)


@simulates(llm.ClampOp)
def clamp(op: llm.ClampOp, x: Array) -> Array:
    return rounded(np.clip(wide(x), op.min, op.max), op.y.type)


@simulates(llm.SoftcapOp)
def softcap(op: llm.SoftcapOp, x: Array) -> Array:
    cap = np.float32(op.cap)
    return rounded(np.tanh(wide(x) / cap) * cap, op.y.type)


@simulates(llm.SoftmaxOp)
def softmax(op: llm.SoftmaxOp, x: Array) -> Array:
    return rounded(softmax_over(wide(x), op.axis), op.y.type)


@simulates(llm.MeanOp)
def mean(op: llm.MeanOp, x: Array) -> Array:
    return rounded(wide(x).mean(axis=op.axis, keepdims=True), op.y.type)


@simulates(llm.ReduceSumOp)
def reduce_sum(op: llm.ReduceSumOp, x: Array) -> Array:
    return rounded(wide(x).sum(axis=op.axis, keepdims=True), op.y.type)


@simulates(llm.ArgmaxOp)
def argmax(op: llm.ArgmaxOp, x: Array) -> Array:
    return np.asarray(np.argmax(wide(x), axis=-1, keepdims=True), np.int32)


@simulates(llm.TopkOp)
def topk(op: llm.TopkOp, x: Array) -> tuple[Array, Array]:
    order = np.argsort(-wide(x), axis=-1, kind="stable")[..., : op.k]
    return np.take_along_axis(x, order, axis=-1), order.astype(np.int32)


# ---- the choice of a token ----


@simulates(llm.NarrowOp)
def narrow(op: llm.NarrowOp, x: Array) -> Array:
    return rounded(x, op.y.type)


@simulates(llm.WidenOp)
def widen(op: llm.WidenOp, x: Array) -> Array:
    return wide(x)


@simulates(llm.PenalizeOp)
def penalize(op: llm.PenalizeOp, logits: Array, ids: Array, penalty: Array) -> Array:
    seen = np.unique(ids)
    seen = seen[(seen > 0) & (seen < logits.shape[1])]
    y = logits.copy()
    x = logits[0, seen]
    y[0, seen] = np.where(x < 0, x * penalty, x / penalty)
    return y


@simulates(llm.NucleusOp)
def nucleus(op: llm.NucleusOp, x: Array, temperature: Array, top_k: Array, top_p: Array) -> Array:
    return nucleus_of(x, temperature, top_k, top_p, op.least)


# ---- routing, and experts ----


@simulates(llm.TakeAlongOp)
def take_along(op: llm.TakeAlongOp, x: Array, ids: Array) -> Array:
    y: Array = np.take_along_axis(x, ids, axis=-1)
    return y


@simulates(llm.MultiHotOp)
def multi_hot(op: llm.MultiHotOp, ids: Array) -> Array:
    found: Array = (ids[..., None] == np.arange(op.size)).any(axis=-2)
    return rounded(found, op.y.type)


@simulates(llm.LogicalNotOp)
def logical_not(op: llm.LogicalNotOp, x: Array) -> Array:
    return rounded(np.equal(x, 0), op.y.type)


@simulates(llm.MaskedFillOp)
def masked_fill(op: llm.MaskedFillOp, x: Array, mask: Array) -> Array:
    return rounded(np.where(mask != 0, np.float32(op.value), wide(x)), op.y.type)


@simulates(llm.ExpertsOp)
def experts(
    op: llm.ExpertsOp,
    x: Array,
    ids: Array,
    weights: Array,
    gate: Array | None,
    up: Array,
    down: Array,
    gate_bias: Array | None,
    up_bias: Array | None,
    down_bias: Array | None,
) -> Array:
    def bias_of(biases: Array | None, expert: int) -> Array | None:
        return None if biases is None else biases[expert]

    y = np.zeros(x.shape, np.float32)
    for expert in np.unique(ids):
        rows, places = np.nonzero(ids == expert)
        inner = project(x[rows], up[expert], bias_of(up_bias, expert))
        if gate is None:
            inner = ACTIVATIONS[op.act](inner)
        else:
            gated = project(x[rows], gate[expert], bias_of(gate_bias, expert))
            if op.limit is not None:
                gated, inner = np.minimum(gated, op.limit), np.clip(inner, -op.limit, op.limit)
            inner = ACTIVATIONS[op.act](gated) * (inner + np.float32(op.offset))
        out = project(inner, down[expert], bias_of(down_bias, expert))
        np.add.at(y, rows, out * wide(weights)[rows, places, None])
    return rounded(y, op.y.type)


# ---- data movement ----


@simulates(llm.TakeOp)
def take(op: llm.TakeOp, x: Array, order: Array) -> Array:
    return x[..., order]


@simulates(llm.ReshapeOp)
def reshape(op: llm.ReshapeOp, x: Array) -> Array:
    return x.reshape(op.shape)


@simulates(llm.PermuteOp)
def permute(op: llm.PermuteOp, x: Array) -> Array:
    return x.transpose(op.order)


@simulates(llm.SliceOp)
def slice_(op: llm.SliceOp, x: Array) -> Array:
    return x[(slice(None),) * op.axis + (slice(op.start, op.stop, op.step),)]


@simulates(llm.PutOp)
def put(op: llm.PutOp, x: Array, rows: Array) -> Array:
    y = np.moveaxis(x.copy(), op.axis, 0)
    y[op.start : op.start + rows.shape[op.axis]] = np.moveaxis(rows, op.axis, 0)
    return np.moveaxis(y, 0, op.axis)


@simulates(llm.ConcatOp)
def concat(op: llm.ConcatOp, parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=op.axis)


@simulates(llm.PadOp)
def pad(op: llm.PadOp, x: Array) -> Array:
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, op.size - x.shape[-1])])


@simulates(llm.BroadcastOp)
def broadcast(op: llm.BroadcastOp, x: Array) -> Array:
    return np.broadcast_to(x, op.shape)


# ---- exchange between the parts of a net ----


@exchanges(llm.AllReduceOp)
@simulates(llm.AddTermsOp)
def sum_of_terms(op: llm.AllReduceOp | llm.AddTermsOp, terms: list[Array]) -> Array:
    y = terms[0]
    for term in terms[1:]:
        y = y + term
    return rounded(y, op.y.type)


@exchanges(llm.AllGatherOp)
def all_gather(op: llm.AllGatherOp, parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=op.axis)


@simulates(llm.LargestOp)
def largest(op: llm.LargestOp, x: Array) -> tuple[Array, Array]:
    index = np.argmax(wide(x), axis=-1, keepdims=True)
    return np.take_along_axis(wide(x), index, axis=-1), (index + op.offset).astype(np.int32)


@exchanges(llm.AllReduceArgmaxOp)
def all_reduce_argmax(op: llm.AllReduceArgmaxOp, values: list[Array], indices: list[Array]) -> Array:
    part = np.argmax(np.concatenate(values, axis=-1), axis=-1, keepdims=True)
    return np.take_along_axis(np.concatenate(indices, axis=-1), part, axis=-1)


@simulates(llm.IndexOfLargestOp)
def index_of_largest(op: llm.IndexOfLargestOp, values: list[Array], indices: list[Array]) -> Array:
    return indices[int(np.argmax([value.item() for value in values]))]
