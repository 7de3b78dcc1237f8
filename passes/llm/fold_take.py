"""Inputs in another order, where the order of what they are computed by may change instead."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.diagnostics import log
from compiler.ir.core import Op, Value
from compiler.ir.module import Module, walk
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from compiler.weights.order import in_order
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass

ITEM_BY_ITEM = (llm.ActOp, llm.SwigluOp, llm.AddOp, llm.SubOp, llm.MulOp, llm.DivOp, llm.NegOp, llm.ClampOp)


@dataclass(frozen=True)
class FoldTake(Pass):
    """llm -> llm. take of what linears give becomes an order of their weights' rows, which costs nothing."""

    name = "fold-take"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fold_take])
        for op in walk(module):
            if isinstance(op, llm.TakeOp):
                log.debug("%s: a gather puts the inputs in order, for none of the linears before can", op.loc)


@rewrite(llm.TakeOp)
def fold_take(op: llm.TakeOp, rw: Rewriter) -> None:
    """take(f(linear(x, w)), order) -> f(linear(x, rows of w in order)), for f item by item, read once."""
    order = op.order.defining(llm.IndicesOp)
    if order is None or op.order.type.shape != op.x.type.shape[-1:] or not can_give(op.x):
        return
    give_in_order(op.x, order.name, rw)
    rw.replace(op, op.x)


def can_give(x: Value) -> bool:
    """Whether a value is computed item by item from linears, and has no other reader on the way."""
    maker = x.owner
    if not isinstance(maker, Op) or not x.has_one_use():
        return False
    if isinstance(maker, llm.LinearOp | llm.GatedLinearOp):
        return all(is_named(weight) for weight in rows_of(maker)) and getattr(maker, "residual", None) is None
    same_shape = all(operand.type.shape == x.type.shape for operand in maker.operands)
    return isinstance(maker, ITEM_BY_ITEM) and same_shape and all(map(can_give, maker.operands))


def rows_of(linear: llm.LinearOp | llm.GatedLinearOp) -> list[Value]:
    """The weights and biases, all that has a row for each item of the result."""
    return [operand for operand in linear.operands if operand is not linear.x]


def is_named(weight: Value) -> bool:
    return weight.defining(llm.WeightOp) is not None


def give_in_order(x: Value, order: str, rw: Rewriter) -> None:
    """Have the linears that a value is computed from give their results in an order."""
    maker = x.owner
    assert isinstance(maker, Op)
    if not isinstance(maker, llm.LinearOp | llm.GatedLinearOp):
        for operand in maker.operands:
            give_in_order(operand, order, rw)
        return
    log.debug("%s: the order of the inputs behind it becomes that of its rows", maker.loc)
    for index, operand in enumerate(maker.operands):
        weight = operand.defining(llm.WeightOp)
        if operand is not maker.x and weight is not None:
            name = in_order(weight.name, order)
            ordered = rw.insert_before(weight, llm.WeightOp(name=name, types=[operand.type], loc=weight.loc))
            maker.set_operand(index, ordered.y)
            if not weight.has_uses():
                rw.erase(weight)
