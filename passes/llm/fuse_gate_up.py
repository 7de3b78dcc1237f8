"""Gate and up projections of one input, with their activation, as one op."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class FuseGateUp(Pass):
    """llm -> llm. swiglu of two linears of one x, or of two slices of one linear, becomes gated_linear."""

    name = "fuse-gate-up"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, [fuse_two_linears, fuse_two_slices])


@rewrite(llm.SwigluOp)
def fuse_two_linears(op: llm.SwigluOp, rw: Rewriter) -> None:
    """swiglu(linear(x, g), linear(x, u)) -> gated_linear(x, g, u), unless something else reads a linear, or g
    and u are stored in different ways.
    """
    gate, up = op.gate.defining(llm.LinearOp), op.up.defining(llm.LinearOp)
    if gate is None or up is None or gate.x is not up.x:
        return
    if not llm.stored_alike(gate.weight, up.weight):
        return
    if not all(linear.residual is None and linear.y.has_one_use() for linear in (gate, up)):
        return
    gated = llm.GatedLinearOp(
        gate.x,
        gate.weight,
        up.weight,
        gate.bias,
        up.bias,
        act=op.act,
        loc=fused(gate.loc, up.loc, op.loc),
    )
    rw.replace(op, gated)


@rewrite(llm.SwigluOp)
def fuse_two_slices(op: llm.SwigluOp, rw: Rewriter) -> None:
    """swiglu(slice(linear(x, w)), slice(linear(x, w))) -> gated_linear(x, rows of w, rows of w)."""
    gate, up = op.gate.defining(llm.SliceOp), op.up.defining(llm.SliceOp)
    if gate is None or up is None or gate.x is not up.x:
        return
    linear = gate.x.defining(llm.LinearOp)
    if linear is None or linear.residual is not None or len(linear.y.users) != 2:
        return
    last = len(linear.y.type.shape) - 1
    if gate.axis != last or up.axis != last:
        return
    weights = [rows(linear.weight, part, rw, op) for part in (gate, up)]
    biases = [rows(linear.bias, part, rw, op) if linear.bias else None for part in (gate, up)]
    loc = fused(linear.loc, op.loc)
    rw.replace(op, llm.GatedLinearOp(linear.x, *weights, *biases, act=op.act, loc=loc))


def rows(weight: Value, part: llm.SliceOp, rw: Rewriter, anchor: llm.SwigluOp) -> Value:
    """The rows of a weight that make a slice of the result."""
    chosen = llm.SliceWeightsOp(weight, start=part.start, stop=part.stop, step=part.step, loc=part.loc)
    return rw.insert_before(anchor, chosen).y
