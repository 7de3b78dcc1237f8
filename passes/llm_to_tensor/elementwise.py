"""Arithmetic and activations, element by element in f32."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Value
from dialects import llm, tensor
from passes.llm_to_tensor.context import Lowering, lowers
from passes.llm_to_tensor.formulas import FUNCTIONS, KINDS, reciprocal, with_number
from passes.tensor.columns import column_parts


@lowers(*(kind for kind in FUNCTIONS if kind is not llm.ActOp))
def function(low: Lowering, op: Any) -> Value | None:
    """Some columns at a time, since what lies between takes several times the room of x."""
    if llm.is_weight(op.y):
        return None  # see `Lowering.row`
    x = low.f32(op.x)
    parts = [low.kept(FUNCTIONS[type(op)](low.build, part, op), op.y) for part in column_parts(low.build, x)]
    return low.build.concat(parts, len(x.type.shape) - 1)


@lowers(*KINDS)
def arithmetic(low: Lowering, op: Any) -> Value | None:
    """The result may be accumulated upon, so it lies in whole slots."""
    if llm.is_weight(op.y):
        return None  # see `Lowering.row`
    if op.rhs is None:
        return with_number(low.build, low.f32(op.lhs), op, compact=False)
    lhs, rhs = operands(low, op)
    if isinstance(op, llm.DivOp):
        rhs = reciprocal(low.build, rhs)
    return low.build.binary(KINDS[type(op)], lhs, rhs, compact=False)


@lowers(llm.NarrowOp)
def narrow(low: Lowering, op: llm.NarrowOp) -> Value:
    """Rounded where it is read rounded, as all values are."""
    return low.get(op.x)


def operands(low: Lowering, op: Any) -> tuple[Value, Value]:
    """Both as arrays in f32; one that is known at compile time lies as the other needs it."""
    if llm.is_weight(op.rhs):
        lhs = low.f32(op.lhs)
        return lhs, low.row(op.rhs, lhs)
    rhs = low.f32(op.rhs)
    if llm.is_weight(op.lhs):
        return low.row(op.lhs, rhs), rhs
    lhs = low.f32(op.lhs)
    axes = [tensor.axis_over_lanes(x.type) for x in (lhs, rhs)]
    if len(lhs.type.shape) != len(rhs.type.shape) or (None not in axes and axes[0] != axes[1]):
        op.fail(f"takes arrays of {lhs.type} and {rhs.type}, which do not lie beside each other")
    return lhs, rhs
