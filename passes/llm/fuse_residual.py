"""The residual connection as part of the linear before it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class FuseResidual(Pass):
    """llm -> llm. add(linear(x, w), r) becomes linear(x, w) with residual r."""

    name = "fuse-residual"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fuse_residual])


@rewrite(llm.AddOp)
def fuse_residual(op: llm.AddOp, rw: Rewriter) -> None:
    """add(linear(x, w, b), r) -> linear(x, w, b, r), unless something else reads the linear."""
    if op.rhs is None:
        return
    for product, residual in ((op.rhs, op.lhs), (op.lhs, op.rhs)):
        linear = product.defining(llm.LinearOp)
        if linear is None or linear.residual is not None or not linear.y.has_one_use():
            continue
        if residual.type != linear.y.type:
            continue
        loc = fused(linear.loc, op.loc)
        whole = llm.LinearOp(linear.x, linear.weight, linear.bias, residual, loc=loc)
        rw.replace(op, whole)
        return
