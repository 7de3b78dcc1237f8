"""Choose a token by numbers in the order of the logits, not by the logits."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.core import Op, Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class SkipBeforeArgmax(Pass):
    """llm -> llm. Drop what changes no order before an argmax: positive factors, soft caps.

    Where the logits themselves are a result, they stay what they are.
    """

    name = "skip-before-argmax"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [skip_before_argmax])


@rewrite(llm.ArgmaxOp)
def skip_before_argmax(op: llm.ArgmaxOp, rw: Rewriter) -> None:
    """argmax(f(x)) -> argmax(x), where f(a) > f(b) only if a > b."""
    before = op.x.owner
    source = ordered_alike(before) if isinstance(before, Op) else None
    if isinstance(before, Op) and source is not None:
        rw.replace(op, llm.ArgmaxOp(source, loc=fused(before.loc, op.loc)))


def ordered_alike(op: Op) -> Value | None:
    """The operand whose order the result has."""
    match op:
        case llm.SoftcapOp():
            return op.x
        case llm.MulOp() | llm.DivOp() if op.value is not None and op.value > 0:
            return op.lhs
        case llm.AddOp() | llm.SubOp() if op.value is not None:
            return op.lhs
    return None
