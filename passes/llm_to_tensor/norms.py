"""Norms and element-wise arithmetic, in f32."""

from __future__ import annotations

from compiler.ir.core import Value
from dialects import llm, tensor
from passes.llm_to_tensor.context import Lowering, lowers


@lowers(llm.RmsNormOp)
def rms_norm(low: Lowering, op: llm.RmsNormOp) -> Value:
    """x * rsqrt(mean(x**2) + eps) * w in f32."""
    gain, parts = None, []
    for x in low.parts(op.x):
        gain = gain or gain_of(low, op, x)
        parts.append(low.kept(normalized(low, x, op, gain), op.y))
    return low.joined(parts, op.x)


def gain_of(low: Lowering, op: llm.RmsNormOp, x: Value) -> Value | None:
    if op.weight is None:
        return None
    gain = low.row(op.weight, x)
    return low.build.scalar(tensor.AddOp, gain, op.offset) if op.offset else gain


def normalized(low: Lowering, x: Value, op: llm.RmsNormOp, gain: Value | None) -> Value:
    build, last = low.build, len(x.type.shape) - 1
    square = build.binary(tensor.MulOp, x, x)
    mean = build.add(tensor.ReduceOp(square, kind="sum", axis=last, scale=1.0 / x.type.shape[last]))
    root = build.add(tensor.RsqrtOp(build.scalar(tensor.AddOp, mean, op.eps)))
    y = build.binary(tensor.MulOp, x, root)
    return y if gain is None else build.binary(tensor.MulOp, y, gain)


@lowers(llm.AddOp)
def add(low: Lowering, op: llm.AddOp) -> Value:
    return binary(low, op, tensor.AddOp)


@lowers(llm.MulOp)
def mul(low: Lowering, op: llm.MulOp) -> Value:
    return binary(low, op, tensor.MulOp)


def binary(low: Lowering, op: llm.AddOp | llm.MulOp, kind: type[tensor.Binary]) -> Value:
    """The result may be accumulated upon, so it lies in whole slots."""
    x = low.f32(op.lhs)
    if op.value is not None:
        return low.build.scalar(kind, x, op.value, compact=False)
    assert op.rhs is not None
    rhs = low.f32(op.rhs)
    if tensor.axis_over_lanes(rhs.type) not in (None, x.type.layout.axis):
        op.fail(f"takes arrays of {x.type.layout} and {rhs.type.layout}, which must be one")
    return low.build.binary(kind, x, rhs, compact=False)
