"""Tokens that a linear gives, behind others that are known: products move no token from its lane."""

from __future__ import annotations

from compiler.ir.location import fused
from compiler.ir.rewrite import Rewriter, rewrite
from dialects import llm


@rewrite(llm.ConcatOp)
def join_inputs(op: llm.ConcatOp, rw: Rewriter) -> None:
    """concat(c, linear(x)) of tokens -> put(linear(the last of x, then x), c), c being parameters."""
    if len(op.parts) != 2 or not llm.is_weight(op.parts[0]):
        return
    known, linear = op.parts[0], op.parts[1].defining(llm.LinearOp)
    if linear is None or not linear.y.has_one_use() or linear.residual is not None or linear.partial:
        return
    axis, count = op.axis, known.type.shape[op.axis]
    tokens = linear.x.type.shape[axis]
    if axis != op.y.type.rank - 2 or linear.x.type.rank != op.y.type.rank or count > tokens:
        return
    twice = rw.insert_before(op, llm.ConcatOp(linear.x, linear.x, axis=axis, loc=op.loc))
    inputs = llm.SliceOp(twice.y, axis=axis, start=tokens - count, stop=2 * tokens, loc=op.loc)
    products = llm.LinearOp(rw.insert_before(op, inputs).y, linear.weight, linear.bias, loc=linear.loc)
    loc = fused(linear.loc, op.loc)
    rw.replace(op, llm.PutOp(rw.insert_before(op, products).y, known, axis=axis, loc=loc))
