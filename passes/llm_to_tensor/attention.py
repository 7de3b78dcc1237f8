"""Attention and what prepares for it: rotated heads, and the keys and values of earlier calls."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.core import Value
from compiler.ir.types import F32, Attribute, TensorType
from dialects import llm, tensor
from passes.llm_to_tensor.attend import Mask, query_factor, score_unit
from passes.llm_to_tensor.context import Lowering, lowers
from passes.llm_to_tensor.streams import columns_of, rotary_columns, woven

TURNS = {"half_tables": "half"}  # what a mode does to items, where it is not called as in the tensor dialect


def rows_mode(op: llm.RopeOp) -> str:
    """How rows are made of the tables."""
    if op.has_half_tables:
        return "half_tables"
    return "interleaved" if op.mode == "interleaved" else "half"


@lowers(llm.RopeOp)
def rope(low: Lowering, op: llm.RopeOp) -> Value:
    heads = [*low.parts(op.x)]
    low.check_tokens(op.x, 2)
    scale = score_scale(op)
    rows = rope_rows(low, op, scale)
    if scale is not None:
        low.scaled.add(op.y)
    return low.joined([rotated(low, op, part, rows, scale) for part in heads], op.x)


def rotated(low: Lowering, op: llm.RopeOp, heads: Value, rows: Value, scale: float | None) -> Value:
    """Heads [1, h, tokens, d], the first items of each turned and the others only scaled; perhaps rounded."""
    build, last = low.build, len(heads.type.shape) - 1
    *lead, width = heads.type.shape
    zeros, turned = [0] * last, build.slice(heads, [0] * (last + 1), (*lead, op.rotary_dim))
    parts = [build.add(tensor.RopeOp(turned, rows, mode=TURNS.get(op.mode, op.mode)))]
    if op.rotary_dim < width:
        rest = build.slice(heads, (*zeros, op.rotary_dim), (*lead, width - op.rotary_dim))
        parts.append(rest if scale is None else build.scalar(tensor.MulOp, rest, scale))
    if llm.is_read_rounded(op.y):
        parts = [build.cast(part, op.x.type.element, part.type.layout) for part in parts]
    return build.concat(parts, last)


def score_scale(op: llm.RopeOp) -> float | None:
    """The factor of the scores, if y is only ever a query: it then goes into the table's few numbers."""
    factors = {
        query_factor(user.scale, user.softcap, user.q.type.element)
        if isinstance(user, llm.AttentionOp) and user.q is op.y
        else None
        for user in op.y.users
    }
    (factor,) = factors if len(factors) == 1 else (None,)
    return factor


def rope_rows(low: Lowering, op: llm.RopeOp, scale: float | None) -> Value:
    """cos and sin of this run's positions, perhaps scaled; one gather serves all heads of q and k."""
    known, key = low.current.rope_rows, (op.cos, op.sin, rows_mode(op), scale)
    if key not in known:
        rows = gathered_rows(low, op) if scale is None else rope_rows(low, op, None)
        known[key] = rows if scale is None else low.build.scalar(tensor.MulOp, rows, scale)
    return known[key]


def gathered_rows(low: Lowering, op: llm.RopeOp) -> Value:
    cos, sin = low.table_rows(op.cos), low.table_rows(op.sin)
    if (cos.ids, cos.shape, cos.streams) != (sin.ids, sin.shape, sin.streams):
        op.fail("takes rows of cos and sin at different positions")
    gathered, beside_heads = low.position_layouts()
    if cos.streams is None:
        rows = low.gathered_from(rope_table(low, op), low.token_rows(cos.ids), gathered)
    else:
        columns = rotary_columns(columns_of(cos.streams), rows_mode(op))
        rows = woven(low.build, stream_rows(low, op, columns, gathered), columns)
    return low.build.reshape(rows, (1, *rows.type.shape), beside_heads)


def stream_rows(low: Lowering, op: llm.RopeOp, columns: list[int], layout: Attribute) -> dict[int, Value]:
    """Of each stream the columns that follow it."""
    rows, parts = low.table_rows(op.cos), {}
    for number in sorted({*columns}):
        table = rope_table(low, op, [i for i, stream in enumerate(columns) if stream == number])
        parts[number] = low.gathered_from(table, low.stream(rows, number), layout)
    return parts


def rope_table(low: Lowering, op: llm.RopeOp, columns: Sequence[int] = ()) -> Value:
    """Cosines and sines in DDR; all columns, or some."""
    cos, sin = low.table_rows(op.cos), low.table_rows(op.sin)
    type_ = TensorType((cos.shape[0], len(columns) or 2 * op.rotary_dim), F32)
    return low.build.add(
        tensor.RopeTableOp(
            cos=cos.name, sin=sin.name, mode=rows_mode(op), columns=tuple(columns), types=[type_]
        )
    )


@lowers(llm.KvConcatOp)
def kv_concat(low: Lowering, op: llm.KvConcatOp) -> None:
    """Nothing is joined: attention reads both parts where they are; see `Lowering.pieces`."""


@lowers(llm.HideBeforeOp)
def hide_before(low: Lowering, op: llm.HideBeforeOp) -> None:
    """Attention hides what it loads of the mask."""


def mask_of(low: Lowering, value: Value, unit: float) -> Mask:
    hidden = value.defining(llm.HideBeforeOp)
    if hidden is None:
        return Mask(low.argument(value), unit)
    return Mask(low.argument(hidden.mask), unit, low.get(hidden.first))


@lowers(llm.AttentionOp)
def attention(low: Lowering, op: llm.AttentionOp) -> Value:
    if op.mask is None and op.visible.is_placed:
        op.fail("without a mask, of which some keys are hidden, has no lowering to the tensor dialect")
    element = op.q.type.element
    mask = None if op.mask is None else mask_of(low, op.mask, score_unit(element))
    return low.attention(op, queries(low, op), mask)


def queries(low: Lowering, op: llm.AttentionOp) -> Value:
    """q in 16 bit, in units of the scores."""
    element = op.q.type.element
    if op.q in low.scaled:
        q = low.get(op.q)
        return low.build.cast(q, element, q.type.layout)
    factor = query_factor(op.scale, op.softcap, element)
    parts = [low.build.scalar(tensor.MulOp, part, factor) for part in low.parts(op.q)]
    return low.joined([low.build.cast(part, element, part.type.layout) for part in parts], op.q)
