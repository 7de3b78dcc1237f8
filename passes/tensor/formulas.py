"""Activations and other functions of one array, in f32 tensor ops."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from compiler.ir.core import Value
from dialects import tensor
from passes.tensor.build import Build

CUBIC = 0.044715  # of the tanh approximation of gelu
QUICK = 1.702  # of the sigmoid approximation of gelu


def sigmoid(build: Build, x: Value) -> Value:
    return build.add(tensor.SigmoidOp(x))


def silu(build: Build, x: Value) -> Value:
    return build.binary(tensor.MulOp, x, sigmoid(build, x))


def gelu(build: Build, x: Value) -> Value:
    return build.binary(tensor.MulOp, x, build.add(tensor.NormalCdfOp(x)))


def gelu_tanh(build: Build, x: Value) -> Value:
    """x sigmoid(2 u), which is x / 2 (1 + tanh u), for u = sqrt(2 / pi) x (1 + c x**2)."""
    slope = 2 * sqrt(2 / pi)
    square = build.scalar(tensor.MulOp, build.binary(tensor.MulOp, x, x), slope * CUBIC)
    twice = build.binary(tensor.MulOp, build.scalar(tensor.AddOp, square, slope), x)
    return build.binary(tensor.MulOp, x, sigmoid(build, twice))


def quick_gelu(build: Build, x: Value) -> Value:
    return build.binary(tensor.MulOp, x, sigmoid(build, build.scalar(tensor.MulOp, x, QUICK)))


def relu(build: Build, x: Value) -> Value:
    return build.scalar(tensor.MaxOp, x, 0.0)


def relu2(build: Build, x: Value) -> Value:
    y = relu(build, x)
    return build.binary(tensor.MulOp, y, y)


def tanh(build: Build, x: Value) -> Value:
    return softcap(build, x, 1.0)


def softcap(build: Build, x: Value, cap: float) -> Value:
    """cap tanh(x / cap) = 2 cap sigmoid(2 x / cap) - cap, to within cap * 2e-5."""
    y = sigmoid(build, build.scalar(tensor.MulOp, x, 2 / cap))
    return build.scalar(tensor.SubOp, build.scalar(tensor.MulOp, y, 2 * cap), cap)


ACTIVATIONS: dict[str, Callable[[Build, Value], Value]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "relu2": relu2,
    "sigmoid": sigmoid,
    "tanh": tanh,
}


def clamp(build: Build, x: Value, low: float | None, high: float | None) -> Value:
    x = x if low is None else build.scalar(tensor.MaxOp, x, low)
    return x if high is None else build.scalar(tensor.MinOp, x, high)
