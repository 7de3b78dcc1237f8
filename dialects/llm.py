"""The llm dialect: what a decoder transformer says, on no particular chip.

Letters in shapes: S tokens of this call, H tokens of history, T = H + S keys, E hidden size, F
intermediate size, D head size, R rotated part of a head, V vocabulary. Shapes are static and batch is 1.

Every op works in the element type of its operands, and states where a step inside is float32 whatever
that type is. A block's functions use these ops in one canonical form of data movement, on which later
passes match:

    qkv   [1, S, (Hq + 2 Hkv) * D]  = linear
    head  [1, S, h, D]              = reshape(slice(qkv, axis 2, one contiguous range))
    q, k  [1, h, S, D]              = rope(permute(head, order 0 2 1 3)), with a norm of the head before
    v     [1, h, S, D]              = permute(head, order 0 2 1 3)
    y     [1, S, Hq * D]            = reshape(attention(q, k, v, mask))

and the KV rows handed to the client, [1, S, h, D], are permute(rope(...), order 0 2 1 3) for k and the
head itself for v.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from compiler.ir.core import Op, Value
from compiler.ir.define import (
    Attr,
    Operand,
    OptionalAttr,
    OptionalOperand,
    Result,
    VariadicOperand,
    op,
)
from compiler.ir.types import BF16, F16, F32, I32, Attribute, ElementType, TensorType, attr_def
from compiler.weights.part import part_of
from compiler.weights.scaled import weight_and_scale
from compiler.weights.scheme import scheme_of
from dialects.activations import Activation
from dialects.parts import Collective, Gathers, Over
from dialects.shapes import (
    broadcast,
    check_axis,
    check_broadcast,
    check_concatenation,
    check_count,
    check_projection,
    check_range,
    check_row_indices,
    concatenated,
    rows_type,
)

RopeMode = Literal["half", "interleaved", "half_tables", "pairs_to_halves"]
VISIBLE_KINDS = ("causal", "window", "chunk", "band", "all", "masked")
SIZED_KINDS = ("window", "chunk", "band")


class RoundsOperands(Op):
    """Trait of the ops that read activations in their own element type, and never more exactly."""


class Projects(RoundsOperands):
    """Trait of the ops that multiply activations by weights; only they decode what is stored as codes."""

    @property
    def projections(self) -> tuple[Value[TensorType], ...]:
        """The weights [N, K]."""
        raise NotImplementedError


class IsWeight(Op):
    """Trait of the ops that give a parameter or what rows of parameters make, stored as their types say."""


class LeadsToAttention(Op):
    """Trait of the ops that a query, key or value may pass between its projection and the attention."""

    @property
    def passed(self) -> Value:
        """The operand that comes from the projection."""
        return self.operands[0]


def is_read_rounded(value: Value) -> bool:
    """Whether all that read the value, as it is or with its axes permuted, do so in its element type; some of
    it may be a result that parts of a net have together.
    """
    return all(
        isinstance(user, RoundsOperands)
        or user.is_terminator
        or (isinstance(user, PermuteOp | AllGatherOp) and is_read_rounded(user.y))
        or (isinstance(user, SliceOp) and all(isinstance(each, AllGatherOp) for each in user.y.users))
        for user in value.users
    )


# ---- named data ----


@op("llm.weight")
class WeightOp(IsWeight):
    """A parameter of the model, by name; its values stay in the checkpoint.

    The name is relative to the layer ("self_attn.q_proj.weight"), since one module serves every layer
    with the same graph. A name with a leading "/" is the full name of a parameter outside of any layer. The
    name may be that of a part of a parameter of experts, or of rows by factors; see `compiler.weights.part`
    and `compiler.weights.scaled`.
    Where the type has a `#weights.scheme`, the parameter is stored as codes, and the value is what they
    decode to.
    """

    name: Attr[str]
    y: Result[TensorType]

    @property
    def module(self) -> str:
        """The module whose weight it is; the parameter's name, where it is called otherwise."""
        name, _ = weight_and_scale(self.name)
        part = part_of(name)
        return (part.parameter if part else name).removeprefix("/").removesuffix(".weight")

    def verify(self) -> None:
        _check_readers(self, self.y)


@op("llm.concat_weights")
class ConcatWeightsOp(IsWeight):
    """Weights of several linears as one, joined along the output axis (0); known at compile time.

    Shapes: [N_i, K] each -> [sum N_i, K]; biases [N_i] -> [sum N_i].
    """

    weights: VariadicOperand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (replace(concatenated(self.weights, 0), layout=self.weights[0].type.layout),)

    def verify(self) -> None:
        check_concatenation(self, self.weights, 0)
        if not stored_alike(*self.weights, self.y):
            types = ", ".join(str(value.type) for value in (*self.weights, self.y))
            self.fail(f"joins weights that are stored in different ways: {types}")
        _check_readers(self, self.y)


@op("llm.slice_weights")
class SliceWeightsOp(IsWeight):
    """Items start, start + step, ... before stop of one axis of a weight [N, K] or a bias [N]: rows, which
    make outputs, on axis 0, or inputs on axis 1; known at compile time.

    Inputs of a weight that is stored as codes are neighbours, in whole groups.
    """

    weight: Operand[TensorType]
    start: Attr[int]
    stop: Attr[int]
    step: Attr[int] = 1
    axis: Attr[int] = 0
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = list(self.weight.type.shape)
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return (replace(self.weight.type, shape=tuple(shape)),)

    def verify(self) -> None:
        check_range(self, self.weight.type, self.axis, (self.start, self.stop, self.step))
        scheme = scheme_of(self.weight.type)
        whole = scheme is None or (self.start % scheme.group == 0 and self.step == 1)
        if self.axis == len(self.weight.type.shape) - 1 and not whole:
            self.fail(f"takes inputs {self.start}:{self.stop}:{self.step}, which are no whole groups")
        if not stored_alike(self.weight, self.y):
            self.fail(f"makes {self.y.type} of {self.weight.type}, which is stored in another way")
        _check_readers(self, self.y)


@op("llm.table")
class TableOp(Op):
    """Rows computed at compile time, by name: a rotary table of one row per position, [positions, R].

    Tables are float32 whatever the activations are; the values are beside the module, like weights.
    """

    name: Attr[str]
    y: Result[TensorType]

    def verify(self) -> None:
        if self.y.type.element != F32:
            self.fail(f"gives {self.y.type}, but tables are f32")


@op("llm.indices")
class IndicesOp(Op):
    """Whole numbers known at compile time, by name, from 0 to 65535: [J] i32.

    The name is as that of a `llm.weight`: equal graphs serve layers with different numbers.
    """

    name: Attr[str]
    y: Result[TensorType]

    def verify(self) -> None:
        if self.y.type.element != I32 or self.y.type.rank != 1:
            self.fail(f"gives {self.y.type}, expected one axis of i32")


@op("llm.take")
class TakeOp(RoundsOperands):
    """y[..., j] = x[..., order[j]]; x [..., K], order [J] from `llm.indices`, y [..., J].

    This puts the inputs of a linear in the order in which a checkpoint stores its weights: GPTQ with
    desc_act sorts them by how much they matter. Source: Frantar et al. 2022, GPTQ; `g_idx` in AutoGPTQ.
    """

    shapes = "x[..., K] order[J] y[..., J]"

    x: Operand[TensorType]
    order: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        x = self.x.type
        return (TensorType((*x.shape[:-1], *self.order.type.shape), x.element),)

    def verify(self) -> None:
        if self.order.defining(IndicesOp) is None:
            self.fail("takes an order that is computed where it needs one that is known at compile time")


@attr_def("llm.streams")
@dataclass(frozen=True)
class Streams(Attribute):
    """Which of several streams of row numbers picks each section of a table's columns.

    The first `widths[0]` columns are of rows that stream `numbers[0]` picks, the next `widths[1]` of rows
    that stream `numbers[1]` picks, and so on. `axis` is that of the streams in ids: 0 of [streams, S], 1 of
    [S, streams].
    Source: apply_multimodal_rotary_pos_emb of Qwen2-VL, where text has three streams of positions: time,
    height and width; Qwen2VisionTransformer, where a patch has two: row and column.
    """

    numbers: tuple[int, ...]
    widths: tuple[int, ...]
    axis: int = 0

    def problem(self) -> str | None:
        if not self.numbers or len(self.numbers) != len(self.widths) or self.axis not in (0, 1):
            return "expected a stream for each of one or more sections, on axis 0 or 1"
        if min(self.widths) < 1 or min(self.numbers) < 0:
            return "has a section without columns, or a stream below 0"
        return None


@op("llm.gather_rows")
class GatherRowsOp(Op):
    """y[0, s] = table[ids[0, s]]; or with streams, column by column, y[0, s, c] = table[ids[n, s], c], where
    n is the stream of column c.

    Shapes: table [N, R], ids i32 [1, S], or as `Streams` says, y [1, S, R].
    """

    shapes = "table[N, R] ids[A, B] y[1, S, R]"

    table: Operand[TensorType]
    ids: Operand[TensorType]
    streams: OptionalAttr[Streams]
    y: Result[TensorType]

    @property
    def stream_axis(self) -> int:
        """The axis of ids that its tokens are not on."""
        return self.streams.axis if self.streams else 0

    def infer_types(self) -> tuple[TensorType, ...]:
        tokens = self.ids.type.shape[1 - self.stream_axis]
        return (TensorType((1, tokens, self.table.type.shape[1]), self.table.type.element),)

    def verify(self) -> None:
        check_row_indices(self, self.table.type, self.ids.type)
        given, columns = self.ids.type.shape[self.stream_axis], self.table.type.shape[1]
        streams = self.streams or Streams((0,), (columns,))
        if self.streams is None and given != 1:
            self.fail(f"takes ids {self.ids.type}, expected [1, S] where no streams are told")
        if sum(streams.widths) != columns:
            self.fail(f"has streams for {sum(streams.widths)} columns of a table {self.table.type}")
        if max(streams.numbers) >= given:
            self.fail(f"takes ids {self.ids.type}, which have no stream {max(streams.numbers)}")


# ---- embedding, linear, matmul ----


@op("llm.embedding")
class EmbeddingOp(Op):
    """y[0, s] = table[ids[0, s]] * scale; ids [1, S] i32, table [V, E], y [1, S, E].

    The scale other than 1 is that of Gemma and Granite, applied in float32.
    """

    shapes = "ids[1, S] table[V, E] y[1, S, E]"

    ids: Operand[TensorType]
    table: Operand[TensorType]
    scale: Attr[float] = 1.0
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (rows_type(self.table.type, self.ids.type),)

    def verify(self) -> None:
        check_row_indices(self, self.table.type, self.ids.type)


@op("llm.linear")
class LinearOp(Projects):
    """y = x @ weight.T + bias + residual, accumulated in float32 and rounded once; where it is `partial`, not
    rounded but f32, as a term of an `llm.all_reduce`.

    Shapes: x [..., K], weight [N, K], bias [N], residual and y [..., N]; the residual is of the type of x.
    """

    shapes = "x[..., K] weight[N, K] bias[N] residual[..., N] y[..., N]"

    x: Operand[TensorType]
    weight: Operand[TensorType]
    bias: OptionalOperand[TensorType]
    residual: OptionalOperand[TensorType]
    partial: Attr[bool] = False
    y: Result[TensorType]

    @property
    def projections(self) -> tuple[Value[TensorType], ...]:
        return (self.weight,)

    def infer_types(self) -> tuple[TensorType, ...]:
        x = self.x.type
        element = F32 if self.partial else x.element
        return (TensorType((*x.shape[:-1], self.weight.type.shape[0]), element),)

    def verify(self) -> None:
        check_projection(self, self.x.type, self.weight.type, self.bias.type if self.bias else None)
        rounded = replace(self.y.type, element=self.x.type.element)
        if self.residual is not None and self.residual.type != rounded:
            self.fail(f"residual is {self.residual.type}, expected the type of the result, {rounded}")


@op("llm.gated_linear")
class GatedLinearOp(Projects):
    """y = act(x @ gate_weight.T + gate_bias) * (x @ up_weight.T + up_bias), rounded once.

    Shapes: x [..., K], weights [F, K], biases [F], y [..., F]. Source: Shazeer 2020, "GLU variants".
    """

    shapes = "x[..., K] gate_weight[F, K] up_weight[F, K] gate_bias[F] up_bias[F] y[..., F]"

    x: Operand[TensorType]
    gate_weight: Operand[TensorType]
    up_weight: Operand[TensorType]
    gate_bias: OptionalOperand[TensorType]
    up_bias: OptionalOperand[TensorType]
    act: Attr[Activation] = "silu"
    y: Result[TensorType]

    @property
    def projections(self) -> tuple[Value[TensorType], ...]:
        return self.gate_weight, self.up_weight

    def infer_types(self) -> tuple[TensorType, ...]:
        x = self.x.type
        return (TensorType((*x.shape[:-1], self.gate_weight.type.shape[0]), x.element),)

    def verify(self) -> None:
        for weight, bias in zip(self.projections, (self.gate_bias, self.up_bias), strict=True):
            check_projection(self, self.x.type, weight.type, bias.type if bias else None)
        if self.gate_weight.type != self.up_weight.type:
            self.fail(f"gate weight {self.gate_weight.type} and up weight {self.up_weight.type} differ")


@op("llm.matmul")
class MatmulOp(Op):
    """y = a @ b for two activations, accumulated in float32; a [..., M, K], b [..., K, N], y [..., M, N]."""

    shapes = "a[*, M, K] b[*, K, N] y[*, M, N]"

    a: Operand[TensorType]
    b: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        a, b = self.a.type, self.b.type
        return (TensorType((*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.element),)

    def verify(self) -> None:
        if self.a.type.shape[-1] != self.b.type.shape[-2]:
            self.fail(f"inner axes of {self.a.type} and {self.b.type} differ")
        check_broadcast(self, self.a.type.shape[:-2], self.b.type.shape[:-2])


# ---- norms ----


class _Unary(Op):
    """One result of the type of x."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.x.type,)


@op("llm.rms_norm")
class RmsNormOp(_Unary, LeadsToAttention):
    """y = x / sqrt(mean(x**2, last axis) + eps) * (weight + offset), in float32, rounded once.

    Shapes: x and y [..., K]; weight [K], [heads, K] where x is [..., heads, K], or none. The offset is 0,
    or 1 in Gemma. Source: Zhang and Sennrich 2019, equation 4.
    """

    shapes = "x[..., K] weight[*, K] y[..., K]"

    weight: OptionalOperand[TensorType]
    eps: Attr[float]
    offset: Attr[float] = 0.0

    def verify(self) -> None:
        _check_norm_row(self, self.weight)


@op("llm.layer_norm")
class LayerNormOp(_Unary, LeadsToAttention):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, in float32, rounded once.

    Shapes: x and y [..., K]; weight and bias [K], or [heads, K] where x is [..., heads, K].
    The variance is that of the population. Source: Ba, Kiros and Hinton 2016, equation 3.
    """

    shapes = "x[..., K] weight[*, K] bias[*, K] y[..., K]"

    weight: OptionalOperand[TensorType]
    bias: OptionalOperand[TensorType]
    eps: Attr[float]

    def verify(self) -> None:
        for value in (self.weight, self.bias):
            _check_norm_row(self, value)


# ---- attention ----


@op("llm.rope")
class RopeOp(_Unary, LeadsToAttention):
    """Rotate the first `rotary_dim` of each head by the angles of its position, in float32, rounded once.

    With a, b = the rotated part x[..., :R] and its partner:
      half         b = concat(-x[R/2:R], x[:R/2]);               y = x * cos + b * sin
      interleaved  b[2i] = -x[2i+1], b[2i+1] = x[2i];            y = x * cos + b * sin
      half_tables  the same as half, with tables of width R/2 that serve both halves
      pairs_to_halves  half of concat(x[0:R:2], x[1:R:2]): neighbours turn, and are parted to the halves;
                   tables as for half, or as for half_tables
    Shapes: x and y [1, heads, S, D]; cos and sin [1, 1, S, R] f32 (R/2 for half_tables).
    Source: Su et al. 2021, section 3.4.
    """

    shapes = "x[1, h, S, D] cos[1, 1, S, W] sin[1, 1, S, W] y[1, h, S, D]"

    cos: Operand[TensorType]
    sin: Operand[TensorType]
    mode: Attr[RopeMode] = "half"
    rotary_dim: Attr[int]

    def verify(self) -> None:
        tokens, head = self.x.type.shape[-2:]
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= head:
            self.fail(f"rotary_dim is {self.rotary_dim}, expected an even number up to {head}")
        width = self.rotary_dim // 2 if self.has_half_tables else self.rotary_dim
        for table in (self.cos, self.sin):
            if table.type.shape != (1, 1, tokens, width):
                self.fail(f"table is {table.type}, expected [1, 1, {tokens}, {width}]")

    @property
    def has_half_tables(self) -> bool:
        """Whether the tables serve both halves."""
        by_choice = self.mode == "pairs_to_halves" and self.cos.type.shape[-1] == self.rotary_dim // 2
        return by_choice or self.mode == "half_tables"


@op("llm.kv_concat")
class KvConcatOp(RoundsOperands, LeadsToAttention):
    """Append the keys or values of this call to the history.

    Shapes: history [1, h, H, D], new [1, h, S, D], y [1, h, T, D].
    """

    shapes = "history[1, h, H, D] new[1, h, S, D] y[1, h, T, D]"

    history: Operand[TensorType]
    new: Operand[TensorType]
    y: Result[TensorType]

    @property
    def passed(self) -> Value:
        return self.new

    def infer_types(self) -> tuple[TensorType, ...]:
        return (concatenated((self.history, self.new), 2),)

    def verify(self) -> None:
        check_concatenation(self, (self.history, self.new), 2)


@op("llm.hide_before")
class HideBeforeOp(Op):
    """Hide what lies further back than a query may see: y = mask - 9984 for each key from column j up to the
    query's first one, so y[0, 0, i, j] = mask[0, 0, i, j] - 9984 * max(first[0, i, 0] - j, 0), in float32.

    A client writes a causal mask, so windows are constants of a net: `first` holds rows of a table by
    position. Column j is the key at position j, but for those of this call behind a history, which are no
    earlier than any query's first.
    Shapes: mask [1, 1, S, T]; first [1, S, 1] f32; y [1, 1, S, T] f32.
    """

    shapes = "mask[1, 1, S, T] first[1, S, 1] y[1, 1, S, T]"

    mask: Operand[TensorType]
    first: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (TensorType(self.mask.type.shape, F32),)

    def verify(self) -> None:
        if self.first.type.element != F32:
            self.fail(f"takes first keys of {self.first.type}, expected f32")


@attr_def("llm.visible")
@dataclass(frozen=True)
class Visible(Attribute):
    """Which keys a query may see at most. A mask hides the others too: to skip them, or to leave them to the
    mask, comes to the same, but for a query that sees no key at all, whose result nobody may read.

    The S queries are the last S of the T positions of the keys: query i is at position p = T - S + i.
      causal  keys 0 to p
      window  keys p - size + 1 to p
      chunk   keys of p's own chunk of `size` positions up to p, the first one a multiple of the size
      band    keys p - size + 1 to p + size - 1, so all of any segment of `size` neighbours that p is in
      all     every key
      masked  every key that the mask leaves, so there is one
    """

    kind: str
    size: int = 0

    @property
    def sees_later(self) -> bool:
        """Whether a query may see keys behind its own position."""
        return self.kind in ("band", "all", "masked")

    @property
    def is_placed(self) -> bool:
        """Whether it matters at which position a query is, so that each needs a key of its own."""
        return self.kind not in ("all", "masked")

    def problem(self) -> str | None:
        if self.kind not in VISIBLE_KINDS:
            return f"has the kind {self.kind!r}, expected one of {', '.join(VISIBLE_KINDS)}"
        sized = self.size >= 1 if self.kind in SIZED_KINDS else self.size == 0
        return None if sized else "has a size that is not that of a window, chunk or band"

    def first_key(self, position: int) -> int:
        """The first key that a query at this position may see."""
        window, chunk = position - self.size + 1, position - position % max(self.size, 1)
        return max({"window": window, "band": window, "chunk": chunk}.get(self.kind, 0), 0)

    def stop_key(self, position: int, keys: int) -> int:
        """The key behind the last one that a query at this position may see, of so many keys."""
        if self.kind == "band":
            return min(position + self.size, keys)
        return keys if self.sees_later else position + 1


@op("llm.attention")
class AttentionOp(RoundsOperands):
    """Scaled dot-product attention with grouped heads: as many query heads for each KV head, so that query
    head h reads KV head h // (Hq / Hkv); or for each KV head the number that `groups` has, in order.

    scores = q @ k.T * scale; scores = tanh(scores / softcap) * softcap unless softcap is 0;
    p = softmax(scores + mask) over the keys that `visible` leaves, the row maximum subtracted after the mask
    is added; y = p @ v. A sink is one more logit of each row that takes part in the denominator only.
    Scores, softmax and accumulation are float32. A mask of 16 bit holds what a client writes, 0 or -9984,
    and no number below -1e38; one of f32 may hold any, -inf included. A query that is shown no key gives
    something finite, which nobody reads.
    Shapes: q [1, Hq, S, D], k [1, Hkv, T, D], v [1, Hkv, T, Dv], mask [1, 1, S, T], sinks [Hq],
    y [1, S, Hq, Dv]. Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for the groups.
    """

    shapes = "q[1, Hq, S, D] k[1, Hkv, T, D] v[1, Hkv, T, Dv] mask[1, 1, S, T] sinks[Hq] y[1, S, Hq, Dv]"

    q: Operand[TensorType]
    k: Operand[TensorType]
    v: Operand[TensorType]
    mask: OptionalOperand[TensorType]
    sinks: OptionalOperand[TensorType]
    scale: Attr[float]
    softcap: Attr[float] = 0.0
    groups: Attr[tuple[int, ...]] = ()
    visible: Attr[Visible]
    y: Result[TensorType]

    @property
    def heads_of(self) -> tuple[int, ...]:
        """How many query heads each KV head serves; those of one head follow those of the one before."""
        kv_heads = self.k.type.shape[1]
        return self.groups or (self.q.type.shape[1] // kv_heads,) * kv_heads

    def infer_types(self) -> tuple[TensorType, ...]:
        _, heads, tokens, _ = self.q.type.shape
        return (TensorType((1, tokens, heads, self.v.type.shape[-1]), self.q.type.element),)

    def verify(self) -> None:
        _, heads, tokens, head_size = self.q.type.shape
        _, kv_heads, keys, _ = self.k.type.shape
        stated = len(self.groups) == kv_heads and min(self.groups) >= 1
        if self.groups and not stated:
            self.fail(f"has groups {list(self.groups)}, expected one or more query heads for each KV head")
        if sum(self.heads_of) != heads or self.k.type.shape[-1] != head_size:
            self.fail(f"heads of q {self.q.type} do not group over those of k {self.k.type}")
        if self.v.type.shape[:3] != self.k.type.shape[:3]:
            self.fail(f"k is {self.k.type} and v is {self.v.type}: heads and tokens must agree")
        if self.mask is not None and self.mask.type.shape != (1, 1, tokens, keys):
            self.fail(f"mask is {self.mask.type}, expected [1, 1, {tokens}, {keys}]")
        if self.sinks is not None and self.sinks.type.shape != (heads,):
            self.fail(f"sinks is {self.sinks.type}, expected [{heads}]")
        if self.visible.is_placed and keys < tokens:
            self.fail(f"{keys} keys for {tokens} queries: {self.visible.kind} queries have a key each")
        if self.visible.kind == "masked" and self.mask is None:
            self.fail("has no mask, and nothing else says which keys are visible")


# ---- activations and arithmetic ----


@op("llm.act")
class ActOp(_Unary):
    """y = kind(x), computed in float32.

    silu x * sigmoid(x); gelu x * (1 + erf(x / sqrt(2))) / 2; gelu_tanh its tanh approximation
    x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x**3))); quick_gelu x * sigmoid(1.702 x);
    relu max(x, 0); relu2 its square. Source: Hendrycks and Gimpel 2016; So et al. 2021 for relu2.
    """

    kind: Attr[Activation]


@op("llm.swiglu")
class SwigluOp(Op):
    """y = act(gate) * up, in float32, rounded once; all of one shape."""

    shapes = "gate[...] up[...] y[...]"

    gate: Operand[TensorType]
    up: Operand[TensorType]
    act: Attr[Activation] = "silu"
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.gate.type,)

    def verify(self) -> None:
        if self.gate.type != self.up.type:
            self.fail(f"gate is {self.gate.type} and up is {self.up.type}: they must agree")


class _Binary(Op):
    """lhs and rhs of shapes that broadcast as in numpy; or lhs and the constant `value`."""

    lhs: Operand[TensorType]
    rhs: OptionalOperand[TensorType]
    value: OptionalAttr[float]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        if self.rhs is None:
            return (self.lhs.type,)
        shape = broadcast(self.lhs.type.shape, self.rhs.type.shape)
        return (TensorType(shape, self.lhs.type.element),)

    def verify(self) -> None:
        if (self.rhs is None) == (self.value is None):
            self.fail("expected either a second operand or the attribute value")
        if self.rhs is not None:
            check_broadcast(self, self.lhs.type.shape, self.rhs.type.shape)


@op("llm.add")
class AddOp(_Binary):
    """y = lhs + rhs, or lhs + value."""


@op("llm.sub")
class SubOp(_Binary):
    """y = lhs - rhs, or lhs - value."""


@op("llm.mul")
class MulOp(_Binary):
    """y = lhs * rhs, or lhs * value."""


@op("llm.div")
class DivOp(_Binary):
    """y = lhs / rhs, or lhs / value."""


@op("llm.neg")
class NegOp(_Unary):
    """y = -x."""


@op("llm.rsqrt")
class RsqrtOp(_Unary):
    """y = 1 / sqrt(x), in float32."""


@op("llm.pow")
class PowOp(_Unary):
    """y = x ** exponent, in float32."""

    exponent: Attr[float]


@op("llm.clamp")
class ClampOp(_Unary, LeadsToAttention):
    """y = min(max(x, min), max); either bound may be absent."""

    min: OptionalAttr[float]
    max: OptionalAttr[float]

    def verify(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            self.fail(f"has bounds from {self.min} to {self.max}")


@op("llm.softcap")
class SoftcapOp(_Unary):
    """y = tanh(x / cap) * cap, in float32. Source: Gemma 2 report 2024, section 2."""

    cap: Attr[float]

    def verify(self) -> None:
        if self.cap <= 0:
            self.fail(f"cap is {self.cap}, expected a positive number")


@op("llm.softmax")
class SoftmaxOp(_Unary):
    """y = softmax(x) over `axis` (counted from 0), in float32."""

    axis: Attr[int]

    def verify(self) -> None:
        check_axis(self, self.axis, self.x.type)


class _Reduction(Op):
    """Reduce `axis` (counted from 0), which stays with length 1."""

    x: Operand[TensorType]
    axis: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = list(self.x.type.shape)
        shape[self.axis] = 1
        return (TensorType(tuple(shape), self.x.type.element),)

    def verify(self) -> None:
        check_axis(self, self.axis, self.x.type)


@op("llm.mean")
class MeanOp(_Reduction):
    """y = mean of x over one axis, in float32."""


@op("llm.reduce_sum")
class ReduceSumOp(_Reduction):
    """y = sum of x over one axis, in float32."""


@op("llm.argmax")
class ArgmaxOp(Op):
    """Index of the largest element of the last axis, the lowest of equals; [..., V] -> [..., 1] i32."""

    shapes = "x[..., V] y[..., 1]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (TensorType((*self.x.type.shape[:-1], 1), I32),)


@op("llm.topk")
class TopkOp(Op):
    """The k largest elements of the last axis, largest first, of equals the first; and where they are.

    Shapes: x [..., N], values [..., k] of the type of x, indices [..., k] i32.
    """

    shapes = "x[..., N] values[..., K] indices[..., K]"

    x: Operand[TensorType]
    k: Attr[int]
    values: Result[TensorType]
    indices: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = (*self.x.type.shape[:-1], self.k)
        return TensorType(shape, self.x.type.element), TensorType(shape, I32)

    def verify(self) -> None:
        check_count(self, self.k, self.x.type)


# ---- the choice of a token ----


@op("llm.widen")
class WidenOp(Op):
    """y = x in float32, as exactly as x is known."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (TensorType(self.x.type.shape, F32),)


@op("llm.narrow")
class NarrowOp(Op):
    """y = x, float32, rounded to the 16-bit type of y: what a client gives in float32, as activations."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        x, y = self.x.type, self.y.type
        if x.element != F32 or y.element not in (BF16, F16) or y != TensorType(x.shape, y.element):
            self.fail(f"makes {y} of {x}, expected bf16 or f16 of f32, of the same shape")


@op("llm.penalize")
class PenalizeOp(Op):
    """Logits, less likely where a token has been: there, x < 0 is multiplied by the penalty, else divided.

    A token counts once, however often it is named, and ids outside of the vocabulary not at all. Token 0
    counts never: a client has fewer ids than there is room for, and what it leaves is 0.
    Shapes: logits and y [1, V] f32, ids [1, S] i32, penalty [1] f32.
    Source: Keskar et al. 2019, section 4.1; gen_sample_head_mlir of LlmConverter.py in Sophgo's tpu-mlir.
    """

    shapes = "logits[1, V] ids[1, S] penalty[1] y[1, V]"

    logits: Operand[TensorType]
    ids: Operand[TensorType]
    penalty: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.logits.type,)

    def verify(self) -> None:
        _check_elements(self, (self.logits, F32), (self.ids, I32), (self.penalty, F32))


@op("llm.nucleus")
class NucleusOp(Op):
    """Probabilities of candidates, of which the least likely are left out.

    Candidates come largest logit first, and only the first `top_k` count. p = softmax(x / temperature); a
    candidate stays if the sum of p up to it, its own included, is below top_p (in float32: not above it by a
    part in a million, so that 1 keeps all), or if it is one of the first `least`. The others have 0, and
    the rest sums up to 1. A temperature of 0 leaves the first one.
    Shapes: x and y [1, K] f32, temperature [1] f32, top_k [1] i32, top_p [1] f32.
    Source: Holtzman et al. 2019, section 3.1; gen_sample_head_mlir of LlmConverter.py in Sophgo's tpu-mlir,
    which unlike other samplers drops the candidate that crosses top_p, and keeps five.
    """

    shapes = "x[1, K] temperature[1] top_k[1] top_p[1] y[1, K]"

    x: Operand[TensorType]
    temperature: Operand[TensorType]
    top_k: Operand[TensorType]
    top_p: Operand[TensorType]
    least: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.x.type,)

    def verify(self) -> None:
        _check_elements(self, (self.x, F32), (self.temperature, F32), (self.top_k, I32), (self.top_p, F32))
        check_count(self, self.least, self.x.type)


# ---- routing, and experts ----


@op("llm.take_along")
class TakeAlongOp(Op):
    """y[..., j] = x[..., ids[..., j]]; x [..., N], ids [..., k] i32, y [..., k]."""

    shapes = "x[*, N] ids[*, k] y[*, k]"

    x: Operand[TensorType]
    ids: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (replace(self.ids.type, element=self.x.type.element),)

    def verify(self) -> None:
        _check_ids(self, self.ids.type, self.x.type.shape[:-1])


@op("llm.multi_hot")
class MultiHotOp(Op):
    """y[..., n] = 1 where n is among ids[..., :], else 0; ids [..., k] i32, y [..., size] of floats."""

    ids: Operand[TensorType]
    size: Attr[int]
    y: Result[TensorType]

    def verify(self) -> None:
        _check_ids(self, self.ids.type, self.y.type.shape[:-1])
        if self.size < 1 or self.y.type.shape[-1] != self.size or not self.y.type.element.is_float:
            self.fail(f"gives {self.y.type}, expected floats with {self.size} in the last axis")


@op("llm.logical_not")
class LogicalNotOp(_Unary):
    """y = 1 where x is 0, else 0."""


@op("llm.masked_fill")
class MaskedFillOp(Op):
    """y = value where the mask is not 0, else x; all of one shape. The value may be minus infinity."""

    shapes = "x[...] mask[...] y[...]"

    x: Operand[TensorType]
    mask: Operand[TensorType]
    value: Attr[float]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.x.type,)

    def verify(self) -> None:
        if self.mask.type.shape != self.x.type.shape:
            self.fail(f"mask is {self.mask.type}, expected the shape of {self.x.type}")


@op("llm.experts")
class ExpertsOp(Projects):
    """A mixture of experts: y[s] = sum over j of weights[s, j] * expert(ids[s, j], x[s]), where

        expert(e, x) = down[e] @ (act(gate) * up) + down_bias[e]
        gate = min(gate[e] @ x + gate_bias[e], limit)
        up = clip(up[e] @ x + up_bias[e], -limit, limit) + offset

    without the clipping where there is no limit, and act(up) alone where there is no gate; accumulated in
    float32, rounded once, or f32 where it is `partial`, as of `llm.linear`. Weights may be any numbers, such
    as a softmax of the chosen logits.
    Shapes: x and y [S, K], ids [S, k] i32, weights [S, k]; gate and up [N, F, K], down [N, K, F]; gate_bias
    and up_bias [N, F], down_bias [N, K].
    Source: Shazeer et al. 2017, equation 1; GptOssExperts in transformers 5.23 for limit and offset.
    """

    shapes = (
        "x[S, K] ids[S, k] weights[S, k] gate[N, F, K] up[N, F, K] down[N, K, F] "
        "gate_bias[N, F] up_bias[N, F] down_bias[N, K] y[S, K]"
    )

    x: Operand[TensorType]
    ids: Operand[TensorType]
    weights: Operand[TensorType]
    gate: OptionalOperand[TensorType]
    up: Operand[TensorType]
    down: Operand[TensorType]
    gate_bias: OptionalOperand[TensorType]
    up_bias: OptionalOperand[TensorType]
    down_bias: OptionalOperand[TensorType]
    act: Attr[Activation]
    limit: OptionalAttr[float]
    offset: Attr[float] = 0.0
    partial: Attr[bool] = False
    y: Result[TensorType]

    @property
    def projections(self) -> tuple[Value[TensorType], ...]:
        return tuple(weight for weight in (self.gate, self.up, self.down) if weight is not None)

    def infer_types(self) -> tuple[TensorType, ...]:
        return (replace(self.x.type, element=F32) if self.partial else self.x.type,)

    def verify(self) -> None:
        _check_ids(self, self.ids.type, self.x.type.shape[:-1])
        if self.gate is None and (self.gate_bias is not None or self.limit is not None or self.offset):
            self.fail("limits, shifts or biases a gate that there is not")
        if self.gate is not None and self.gate.type != self.up.type:
            self.fail(f"gate is {self.gate.type} and up is {self.up.type}: they must agree")
        if self.limit is not None and self.limit <= 0:
            self.fail(f"limit is {self.limit}, expected a positive number")


def routed_by(op: ExpertsOp) -> set[Value]:
    """What the choice of experts, and their weights, are computed of, from the products of the router on."""
    found: set[Value] = set()
    wanted: list[Value] = [op.ids, op.weights]
    while wanted:
        value = wanted.pop()
        if value not in found and isinstance(value.owner, Op) and not is_weight(value):
            found.add(value)
            wanted += [] if isinstance(value.owner, LinearOp) else value.owner.operands
    return found


def _check_ids(op: Op, ids: TensorType, lead: tuple[int, ...]) -> None:
    if ids.element != I32 or ids.shape[:-1] != lead:
        op.fail(f"ids are {ids}, expected i32 and the axes {list(lead)} before the last")


# ---- data movement ----


class _Reshaped(Op):
    """The elements of x in a tensor of `shape`."""

    x: Operand[TensorType]
    shape: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (TensorType(self.shape, self.x.type.element),)


@op("llm.reshape")
class ReshapeOp(_Reshaped, LeadsToAttention):
    """The same elements in row-major order under another shape."""

    def verify(self) -> None:
        if prod(self.shape) != prod(self.x.type.shape):
            self.fail(f"shape {list(self.shape)} has not as many elements as {self.x.type}")


@op("llm.permute")
class PermuteOp(LeadsToAttention):
    """Axis i of y is axis order[i] of x."""

    x: Operand[TensorType]
    order: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = self.x.type.shape
        return (TensorType(tuple(shape[axis] for axis in self.order), self.x.type.element),)

    def verify(self) -> None:
        if sorted(self.order) != list(range(len(self.x.type.shape))):
            self.fail(f"order {list(self.order)} is not a permutation of the axes of {self.x.type}")


@op("llm.slice")
class SliceOp(Op):
    """Elements start, start + step, ... before stop of one axis (counted from 0)."""

    x: Operand[TensorType]
    axis: Attr[int]
    start: Attr[int]
    stop: Attr[int]
    step: Attr[int] = 1
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = list(self.x.type.shape)
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return (TensorType(tuple(shape), self.x.type.element),)

    def verify(self) -> None:
        check_range(self, self.x.type, self.axis, (self.start, self.stop, self.step))


@op("llm.concat")
class ConcatOp(Op):
    """Join along one axis (counted from 0); the other axes agree."""

    parts: VariadicOperand[TensorType]
    axis: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (concatenated(self.parts, self.axis),)

    def verify(self) -> None:
        check_concatenation(self, self.parts, self.axis)


@op("llm.put")
class PutOp(Op):
    """x, but its items from `start` on along an axis, counted from 0, are those of `rows` instead."""

    x: Operand[TensorType]
    rows: Operand[TensorType]
    axis: Attr[int]
    y: Result[TensorType]
    start: Attr[int] = 0

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.x.type,)

    def verify(self) -> None:
        check_axis(self, self.axis, self.x.type)
        (x, rows), axis = (self.x.type, self.rows.type), self.axis
        others = [shape[:axis] + shape[axis + 1 :] for shape in (x.shape, rows.shape)]
        fits = 0 <= self.start <= x.shape[axis] - rows.shape[axis]
        if x.element != rows.element or others[0] != others[1] or not fits:
            self.fail(f"puts {rows} into {x} from {self.start} on, expected no more of the same items")


@op("llm.pad")
class PadOp(Op):
    """x with its last axis filled up by zeros to `size`."""

    x: Operand[TensorType]
    size: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (TensorType((*self.x.type.shape[:-1], self.size), self.x.type.element),)

    def verify(self) -> None:
        if self.size < self.x.type.shape[-1]:
            self.fail(f"fills {self.x.type} up to {self.size}, which it has more of")


@op("llm.broadcast")
class BroadcastOp(_Reshaped):
    """Repeat the axes of length 1 up to `shape`, of the same rank."""

    def verify(self) -> None:
        shape = self.x.type.shape
        if len(shape) != len(self.shape) or any(
            a not in (1, b) for a, b in zip(shape, self.shape, strict=True)
        ):
            self.fail(f"{self.x.type} does not broadcast to {list(self.shape)}")


# ---- exchange between the parts of a net; see `dialects.parts` ----


@op("llm.all_reduce", effects=True)
class AllReduceOp(Collective):
    """y = the parts' x, added up in their order, rounded once to the type of y; the same on every part.

    x is f32, so that a residual, which one part alone has in its x, is added as exactly as without parts.
    """

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    over: Attr[Over]
    y: Result[TensorType]

    def verify(self) -> None:
        if self.x.type.element != F32 or not self.y.type.element.is_float:
            self.fail(f"makes {self.y.type} of {self.x.type}, expected floats of f32")


@op("llm.all_gather", effects=True)
class AllGatherOp(Gathers):
    """The parts' x one after the other along `axis`, the same on every part."""

    x: Operand[TensorType]
    over: Attr[Over]
    axis: Attr[int]
    sizes: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def verify(self) -> None:
        self.check_sizes()


@op("llm.largest")
class LargestOp(Op):
    """The largest element of the last axis of x [..., V], the first of equals; and where it is, counted from
    `offset`, as part of a longer axis.

    Shapes: value [..., 1] f32, as exactly as x is known; index [..., 1] i32.
    """

    shapes = "x[..., V] value[..., 1] index[..., 1]"

    x: Operand[TensorType]
    offset: Attr[int] = 0
    value: Result[TensorType]
    index: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        shape = (*self.x.type.shape[:-1], 1)
        return TensorType(shape, F32), TensorType(shape, I32)

    def verify(self) -> None:
        if self.offset < 0:
            self.fail(f"counts from {self.offset}, expected a number from 0 on")


@op("llm.all_reduce_argmax", effects=True)
class AllReduceArgmaxOp(Collective):
    """y = the index beside the largest of the parts' values, of equals that of the first part; on every part.

    Parts have an axis in order, so that is the lowest index of equals. Shapes: as of `llm.largest`.
    """

    shapes = "value[..., 1] index[..., 1] y[..., 1]"

    value: Operand[TensorType]
    index: Operand[TensorType]
    over: Attr[Over]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.index.type,)

    def verify(self) -> None:
        _check_elements(self, (self.value, F32), (self.index, I32))


@op("llm.add_terms")
class AddTermsOp(Op):
    """y = the terms, added up in their order, rounded once to the type of y: what an `llm.all_reduce` comes
    to where the terms of all parts are at hand.

    Terms are f32, all of the shape of y.
    """

    terms: VariadicOperand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        wanted = replace(self.y.type, element=F32)
        if not self.y.type.element.is_float or any(term.type != wanted for term in self.terms):
            self.fail(f"makes {self.y.type} of {', '.join(str(term.type) for term in self.terms)}")


@op("llm.index_of_largest")
class IndexOfLargestOp(Op):
    """y = the index beside the largest of the values, of equals that of the first: what an
    `llm.all_reduce_argmax` comes to where the values of all parts are at hand. All have one item: values are
    f32, indices i32 below 2**24.
    """

    values: VariadicOperand[TensorType]
    indices: VariadicOperand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType, ...]:
        return (self.indices[0].type,)

    def verify(self) -> None:
        if len(self.values) != len(self.indices) or self.y.type.size != 1:
            self.fail(f"chooses {self.y.type} by {len(self.values)} values of {len(self.indices)} indices")
        _check_elements(self, *((x, F32) for x in self.values), *((x, I32) for x in self.indices))


def is_weight(x: Value) -> bool:
    """Whether the value is computed from weights alone, so that it is known at compile time."""
    owner = x.owner
    if not isinstance(owner, Op) or isinstance(owner, RoundsOperands):
        return False  # what activations are read for is never known, however long it would take to find out
    return isinstance(owner, WeightOp) or (bool(owner.operands) and all(map(is_weight, owner.operands)))


def stored_alike(*weights: Value[TensorType]) -> bool:
    """Whether all are stored as codes of one scheme, or all as they are: only such can be joined."""
    return len({value.type.layout for value in weights}) == 1


def _check_elements(op: Op, *stated: tuple[Value[TensorType], ElementType]) -> None:
    for value, element in stated:
        if value.type.element != element:
            op.fail(f"takes {value.type}, expected {element}")


def _check_norm_row(op: _Unary, row: Value[TensorType] | None) -> None:
    if row is not None and row.type.shape != op.x.type.shape[-len(row.type.shape) :]:
        op.fail(f"weight or bias is {row.type}, expected the last axes of {op.x.type}")


def _check_readers(op: Op, weight: Value[TensorType]) -> None:
    """What is stored as codes is decoded for the right side of a matrix product, and for nothing else."""
    if scheme_of(weight.type) is None:
        return
    for user in weight.users:
        if not isinstance(user, Projects | IsWeight):
            user.fail(f"reads {weight.type}, which only linears can")
