"""Slices, and other orders and groupings of axes."""

from __future__ import annotations

from compiler.ir.core import Value
from dialects import llm, tensor
from passes.llm_to_tensor.context import Lowering, TableRows, lowers


@lowers(llm.SliceOp)
def slice_(low: Lowering, op: llm.SliceOp) -> Value:
    if op.step != 1:
        op.fail("a step has no lowering to the tensor dialect")
    x = low.get(op.x)
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
    if op.x.defining(llm.GatherRowsOp) is not None:
        return low.table_rows(op.x)
    return low.reshaped(low.get(op.x), op)


@lowers(llm.PermuteOp)
def permute(low: Lowering, op: llm.PermuteOp) -> Value | None:
    if op.x.owner is low.function.block:  # a history, which attention loads
        return None
    return low.build.permute(low.get(op.x), op.order)


@lowers(llm.TakeOp)
def take(low: Lowering, op: llm.TakeOp) -> Value:
    low.check_tokens(op.x, len(op.x.type.shape) - 2)
    return low.build.add(tensor.TakeOp(low.half(op.x), low.get(op.order)))
