"""Factors of a linear's outputs as part of its weight."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from compiler.weights.scaled import scaled
from compiler.weights.scheme import scheme_of
from dialects import llm
from dialects.contents import Content
from dialects.weights import TensorView, view_of_name
from passes.llm.matching import both_orders
from passes.manager import Pass


@dataclass(frozen=True)
class FoldScale(Pass):
    """llm -> llm. mul(linear(x, w, b), s), s a parameter for each output, becomes linear(x, w * s, b * s).

    The products are made where weights are stored, and rounded once.
    """

    name = "fold-scale"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fold_scale])


@rewrite(llm.MulOp)
def fold_scale(op: llm.MulOp, rw: Rewriter) -> None:
    """mul(linear(x, w, b), s) -> linear(x, w * s, b * s), unless something else reads the linear."""
    for product, factors in both_orders(op):
        linear, scale = product.defining(llm.LinearOp), factors.defining(llm.WeightOp)
        if linear is None or scale is None or not linear.y.has_one_use() or linear.residual is not None:
            continue
        parts = [linear.weight, *([linear.bias] if linear.bias is not None else [])]
        if scale.y.type.shape != linear.y.type.shape[-1:] or not all(map(is_plain, (*parts, factors))):
            continue
        weight, *bias = (with_scale(part, scale, op, rw) for part in parts)
        rw.replace(op, llm.LinearOp(linear.x, weight, *bias, loc=fused(linear.loc, op.loc)))
        return


def is_plain(weight: Value) -> bool:
    """Whether it is a parameter as it is, and no codes."""
    source = weight.defining(llm.WeightOp)
    if source is None or scheme_of(weight.type) is not None:
        return False
    return view_of_name(source.name) == TensorView(source.name)


def with_scale(weight: Value, scale: llm.WeightOp, anchor: llm.MulOp, rw: Rewriter) -> Value:
    source = weight.defining(llm.WeightOp)
    assert source is not None  # as it is plain
    name = scaled(source.name, scale.name)
    made = llm.WeightOp(name=name, types=[weight.type], loc=fused(source.loc, scale.loc))
    return rw.insert_before(anchor, made).y
