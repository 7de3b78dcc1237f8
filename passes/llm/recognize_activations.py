"""Recover activations from the arithmetic that models spell them out in, and scales of embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.location import fused
from compiler.ir.module import Module
from compiler.ir.rewrite import Pattern, Rewriter, apply_patterns, rewrite
from dialects import llm
from dialects.contents import Content
from passes.llm.matching import both_orders, close, scaled_by
from passes.manager import Pass

CUBIC = 0.044715  # of the tanh approximation of gelu
QUICK = 1.702  # of the sigmoid approximation of gelu


def activation(x: Value, kind: str) -> Value | None:
    """The operand, if `x` is that activation of it."""
    op = x.defining(llm.ActOp)
    return op.x if op and op.kind == kind else None


@rewrite(llm.MulOp)
def find_sigmoid_forms(op: llm.MulOp, rw: Rewriter) -> None:
    """x * sigmoid(x) -> silu(x); x * sigmoid(1.702 x) -> quick_gelu(x)."""
    for x, gate in both_orders(op):
        inside = activation(gate, "sigmoid")
        if inside is None:
            continue
        if inside is x:
            rw.replace(op, llm.ActOp(x, kind="silu", loc=op.loc))
            return
        if scaled_by(inside, QUICK) is x:
            rw.replace(op, llm.ActOp(x, kind="quick_gelu", loc=op.loc))
            return


@rewrite(llm.PowOp)
def find_relu2(op: llm.PowOp, rw: Rewriter) -> None:
    """relu(x)**2 -> relu2(x)."""
    x = activation(op.x, "relu")
    if x is not None and op.exponent == 2.0:
        rw.replace(op, llm.ActOp(x, kind="relu2", loc=op.loc))


@rewrite(llm.MulOp)
def find_gelu_tanh(op: llm.MulOp, rw: Rewriter) -> None:
    """0.5 x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x**3))) -> gelu_tanh(x)."""
    for half, bracket in both_orders(op):
        x = scaled_by(half, 0.5)
        one_more = bracket.defining(llm.AddOp)
        if x is None or one_more is None or one_more.value != 1.0:
            continue
        inside = activation(one_more.lhs, "tanh")
        total = scaled_by(inside, math.sqrt(2 / math.pi)) if inside is not None else None
        if total is not None and is_cubic(total, x):
            rw.replace(op, llm.ActOp(x, kind="gelu_tanh", loc=op.loc))
            return


def is_cubic(total: Value, x: Value) -> bool:
    """x + 0.044715 x**3"""
    add = total.defining(llm.AddOp)
    if add is None:
        return False
    cubes = [scaled_by(term, CUBIC) for first, term in both_orders(add) if first is x]
    powers = [cube.defining(llm.PowOp) for cube in cubes if cube is not None]
    return any(power is not None and power.x is x and power.exponent == 3.0 for power in powers)


@rewrite(llm.MulOp)
def find_softcap(op: llm.MulOp, rw: Rewriter) -> None:
    """tanh(x / cap) * cap -> softcap(x)."""
    inside = activation(op.lhs, "tanh") if op.value is not None else None
    divided = inside.defining(llm.DivOp) if inside is not None else None
    if divided is None or divided.value is None or op.value is None or not close(divided.value, op.value):
        return
    rw.replace(op, llm.SoftcapOp(divided.lhs, cap=op.value, loc=op.loc))


@rewrite(llm.MulOp)
def scale_embedding(op: llm.MulOp, rw: Rewriter) -> None:
    """embedding(ids) * c -> embedding(ids) {scale = c}."""
    embedding = op.lhs.defining(llm.EmbeddingOp)
    if embedding is None or op.value is None or not embedding.y.has_one_use():
        return
    scale = embedding.scale * op.value
    loc = fused(embedding.loc, op.loc)
    rw.replace(op, llm.EmbeddingOp(embedding.ids, embedding.table, scale=scale, loc=loc))


PATTERNS: list[Pattern] = [find_sigmoid_forms, find_relu2, find_gelu_tanh, find_softcap, scale_embedding]


@dataclass(frozen=True)
class RecognizeActivations(Pass):
    """llm -> llm. Products of a sigmoid, powers of a relu, and the like become activations of one op.

    A scale of an embedding becomes its attribute. Expects canonical IR, in which a value is computed once.
    """

    name = "recognize-activations"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        apply_patterns(module, PATTERNS)
