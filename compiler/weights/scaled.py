"""Names of weights whose rows a program wants multiplied, by what follows the linear: "proj.weight^*scale".

The factors are named as a parameter is, and there is one for each row.
"""

from __future__ import annotations

import numpy as np

from compiler.weights.stored import Array, to_float32

MARK = "^*"  # "*" by itself stands for every expert


def scaled(weight: str, scale: str) -> str:
    """The name of a weight, or of a bias, with its rows multiplied by the factors of that name."""
    return f"{weight}{MARK}{scale}"


def weight_and_scale(name: str) -> tuple[str, str | None]:
    """What a name says: a weight, and the factors of its rows if it has some."""
    weight, _, scale = name.partition(MARK)
    return weight, scale or None


def rows_scaled(weight: Array, scale: Array) -> Array:
    """The rows of floats by their factors, in f32."""
    factors = to_float32(scale).reshape(-1, *(1,) * (weight.ndim - 1))
    return np.multiply(to_float32(weight), factors)
