"""What element-wise llm ops are in tensor ops: of one array, and of an array and a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.ir.core import Op, Value
from dialects import llm, tensor
from passes.tensor.build import Build
from passes.tensor.formulas import ACTIVATIONS, clamp, softcap

KINDS: dict[type[Op], type[tensor.Binary]] = {
    llm.AddOp: tensor.AddOp,
    llm.SubOp: tensor.SubOp,
    llm.MulOp: tensor.MulOp,
    llm.DivOp: tensor.MulOp,  # by the reciprocal
}


def power(build: Build, x: Value, op: llm.PowOp) -> Value:
    if op.exponent not in POWERS:
        op.fail(f"exponent {op.exponent} has no lowering to the tensor dialect")
    return POWERS[op.exponent](build, x)


def square(build: Build, x: Value) -> Value:
    return build.binary(tensor.MulOp, x, x)


def root(build: Build, x: Value) -> Value:
    return build.binary(tensor.MulOp, x, build.add(tensor.RsqrtOp(x)))


def reciprocal(build: Build, x: Value) -> Value:
    return build.add(tensor.ReciprocalOp(x))


POWERS: dict[float, Callable[[Build, Value], Value]] = {
    2.0: square,
    3.0: lambda build, x: build.binary(tensor.MulOp, square(build, x), x),
    0.5: root,
    -0.5: lambda build, x: build.add(tensor.RsqrtOp(x)),
    -1.0: reciprocal,
}
FUNCTIONS: dict[type[Op], Callable[[Build, Value, Any], Value]] = {  # of one array
    llm.ActOp: lambda build, x, op: ACTIVATIONS[op.kind](build, x),
    llm.SoftcapOp: lambda build, x, op: softcap(build, x, op.cap),
    llm.ClampOp: lambda build, x, op: clamp(build, x, op.min, op.max),
    llm.NegOp: lambda build, x, op: build.scalar(tensor.MulOp, x, -1.0),
    llm.RsqrtOp: lambda build, x, op: build.add(tensor.RsqrtOp(x)),
    llm.PowOp: power,
}


def with_number(build: Build, x: Value, op: Any, compact: bool = True) -> Value:
    """The arithmetic of an array and the number of the op."""
    number: float = op.value
    return build.scalar(KINDS[type(op)], x, 1.0 / number if isinstance(op, llm.DivOp) else number, compact)
