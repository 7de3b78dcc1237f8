"""The activations that ops of several levels may have; `llm.ActOp` says what each one is."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt
from types import MappingProxyType
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "sigmoid", "tanh"]

# Slope and cubic of those that are x / (1 + e**-(slope x + cubic x**3)), as `tensor.bf16_swish` has them:
# gelu is, to within 3e-4, which is little beside what its larger values are rounded by.
SWISHES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "silu": (1.0, 0.0),
        "quick_gelu": (1.702, 0.0),
        "gelu_tanh": (sqrt(8 / pi), 0.044715 * sqrt(8 / pi)),
        "gelu": (1.6, 0.0695),
    }
)
