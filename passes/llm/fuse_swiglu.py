"""An activation and the product it gates, as one op."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class FuseSwiglu(Pass):
    """llm -> llm. mul(act(gate), up) becomes swiglu(gate, up), for any activation."""

    name = "fuse-swiglu"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fuse_swiglu])


@rewrite(llm.MulOp)
def fuse_swiglu(op: llm.MulOp, rw: Rewriter) -> None:
    """mul(act(gate), up) -> swiglu(gate, up), unless something else reads the activation."""
    if op.rhs is None:
        return
    for activated, up in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        act = activated.defining(llm.ActOp)
        if act is None or not act.y.has_one_use() or act.x.type != up.type:
            continue
        rw.replace(op, llm.SwigluOp(act.x, up, act=act.kind, loc=fused(act.loc, op.loc)))
        return
