"""Query, key and value projections of one input as one linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir.core import Op, Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class FuseQkv(Pass):
    """llm -> llm. The three linears before an attention become one linear and three slices of it."""

    name = "fuse-qkv"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fuse_qkv])


@rewrite(llm.AttentionOp)
def fuse_qkv(op: llm.AttentionOp, rw: Rewriter) -> None:
    """q, k, v = linear(x, wq), ... -> slices of linear(x, concat_weights(wq, wk, wv)).

    Only if the three read one x and differ in weights alone, which are stored alike: all have a bias, or none
    has.
    """
    linears = [projection(value) for value in (op.q, op.k, op.v)]
    q, k, v = linears
    if q is None or k is None or v is None or not can_join([q, k, v]):
        return
    anchor = q if q.is_before(k) else k
    anchor = anchor if anchor.is_before(v) else v
    weight = join([q.weight, k.weight, v.weight], anchor, rw)
    bias = join([part.bias for part in (q, k, v) if part.bias is not None], anchor, rw) if q.bias else None
    loc = fused(q.loc, k.loc, v.loc)
    joined = rw.insert_before(anchor, llm.LinearOp(q.x, weight, bias, loc=loc))
    replace_by_slices([q, k, v], joined, rw)


def projection(value: Value) -> llm.LinearOp | None:
    """The linear that an operand of an attention comes from."""
    while isinstance(owner := value.owner, llm.LeadsToAttention):
        value = owner.passed
    return value.defining(llm.LinearOp)


def can_join(linears: Sequence[llm.LinearOp]) -> bool:
    first = linears[0]
    return len(set(linears)) == len(linears) and all(
        linear.x is first.x
        and linear.residual is None
        and llm.stored_alike(linear.weight, first.weight)
        and (linear.bias is None) == (first.bias is None)
        and llm.is_weight(linear.weight)
        for linear in linears
    )


def join(weights: Sequence[Value], anchor: Op, rw: Rewriter) -> Value:
    """The weights as one, before `anchor`; their definitions move there where they stand behind it."""
    for weight in weights:
        hoist(weight, anchor)
    loc = fused(*(weight.owner.loc for weight in weights if isinstance(weight.owner, Op)))
    return rw.insert_before(anchor, llm.ConcatWeightsOp(*weights, loc=loc)).y


def hoist(weight: Value, anchor: Op) -> None:
    owner = weight.owner
    if not isinstance(owner, Op) or owner.is_before(anchor):
        return
    for operand in owner.operands:
        hoist(operand, anchor)
    owner.move_before(anchor)


def replace_by_slices(linears: Sequence[llm.LinearOp], joined: llm.LinearOp, rw: Rewriter) -> None:
    """Give each linear's readers its part of the last axis of the joined one."""
    axis = len(joined.y.type.shape) - 1
    anchor: Op = joined
    start = 0
    for linear in linears:
        stop = start + linear.y.type.shape[axis]
        part = llm.SliceOp(joined.y, axis=axis, start=start, stop=stop, loc=linear.loc)
        anchor = rw.insert_after(anchor, part)
        rw.replace(linear, part)
        start = stop
