"""Slices, and other orders and groupings of axes."""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import F32
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.context import Lowering, TableRows, history_of, is_some_heads, lowers
from passes.ranges import Range


@lowers(llm.SliceOp)
def slice_(low: Lowering, op: llm.SliceOp) -> Value | None:
    if history_of(low, op.y) is not None or llm.is_weight(op.y):  # which attention loads; see `Lowering.row`
        return None
    if op.step != 1:
        op.fail("a step has no lowering to the tensor dialect")
    x = op.x if is_some_heads(low, op) else low.get(op.x)
    if low.mixes_tokens(x, op.axis):
        op.fail("of tokens has no lowering to the tensor dialect")
    starts, sizes = [0] * len(x.type.shape), list(x.type.shape)
    starts[op.axis], sizes[op.axis] = op.start, op.stop - op.start
    return low.build.slice(x, starts, sizes)


@lowers(llm.ReshapeOp)
def reshape(low: Lowering, op: llm.ReshapeOp) -> Value | TableRows | None:
    """Rows of a table are used whole, whatever axes of 1 they are given."""
    if llm.is_weight(op.y):
        return None  # see `Lowering.row`
    if isinstance(rows := low.current.values.get(op.x), TableRows):
        return rows
    return low.reshaped(low.get(op.x), op)


@lowers(llm.PermuteOp)
def permute(low: Lowering, op: llm.PermuteOp) -> Value | None:
    if history_of(low, op.y) is not None or llm.is_weight(op.y):
        return None
    return low.build.permute(low.get(op.x), op.order)


@lowers(llm.ConcatOp)
def concat(low: Lowering, op: llm.ConcatOp) -> Value | None:
    """In f32, unless all parts are rounded already."""
    if llm.is_weight(op.y):
        return None  # see `Lowering.row`
    parts = [low.get(part) for part in op.parts]
    if low.mixes_tokens(parts[0], op.axis):
        op.fail("of tokens has no lowering to the tensor dialect")
    elements = {part.type.element for part in parts}
    element = elements.pop() if len(elements) == 1 else F32
    axis = tensor.axis_over_lanes(parts[0].type)
    if axis is None or any(not tensor.is_over_lanes(part.type, axis) for part in parts):
        op.fail(f"joins {', '.join(str(part.type) for part in parts)}, which lie in different ways")
    return low.build.concat([low.build.cast(part, element, Lanes(axis)) for part in parts], op.axis)


@lowers(llm.PutOp)
def put(low: Lowering, op: llm.PutOp) -> Value:
    """In place of some tokens of this run, which lie on the same lanes."""
    x, axis = low.f32(op.x), op.axis
    stop = op.start + op.rows.type.shape[axis]
    here = Range(op.start, stop).within(low.current.tokens)
    if not low.mixes_tokens(x, axis):
        op.fail("in place of other items than tokens has no lowering to the tensor dialect")
    if not here.size:
        return x
    rows = low.build.reshape(low.weight(op.rows, F32), op.rows.type.shape, None)
    known = low.build.load(low.build.part(rows, axis, here.moved(-op.start)), x.type.layout)
    first = low.current.tokens.start
    before, behind = Range(0, here.start - first), Range(here.stop - first, x.type.shape[axis])
    before_it, behind_it = (
        [low.build.part(x, axis, part)] if part.size else [] for part in (before, behind)
    )
    return low.build.concat([*before_it, known, *behind_it], axis)


@lowers(llm.BroadcastOp)
def broadcast(low: Lowering, op: llm.BroadcastOp) -> Value:
    return low.broadcast(low.get(op.x), op.shape)


@lowers(llm.PadOp)
def pad(low: Lowering, op: llm.PadOp) -> Value:
    return low.build.pad(low.get(op.x), op.size, 0.0)


@lowers(llm.TakeOp)
def take(low: Lowering, op: llm.TakeOp) -> Value:
    low.check_tokens(op.x, len(op.x.type.shape) - 2)
    return low.build.add(tensor.TakeOp(low.half(op.x), low.get(op.order)))
