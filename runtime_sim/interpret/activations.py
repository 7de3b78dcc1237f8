"""The formulas of activations, in float32; `dialects.llm.ActOp` states them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from runtime_sim.arrays import Array

LIMIT = np.float32(87)  # of an exponent of e, both ways
SQRT_2_OVER_PI = np.float32(np.sqrt(2 / np.pi))


def sigmoid(x: Array) -> Array:
    y: Array = np.float32(1) / (np.float32(1) + np.exp(np.clip(-x, -LIMIT, LIMIT)))
    return y


def normal_share(x: Array) -> Array:
    """How much of a normal distribution lies below x, exact where that is little."""
    return np.float32(0.5) * erfc(x * np.float32(-np.sqrt(0.5)))


def gelu(x: Array) -> Array:
    return x * normal_share(x)


def gelu_tanh(x: Array) -> Array:
    inside = SQRT_2_OVER_PI * (x + np.float32(0.044715) * x * x * x)
    y: Array = np.float32(0.5) * x * (np.float32(1) + np.tanh(inside))
    return y


def erfc(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erfc, otypes=[np.float32])(x), np.float32)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * sigmoid(np.float32(1.702) * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.square(np.maximum(x, 0)),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}
