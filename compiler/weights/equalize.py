"""Factors that make inputs more alike: columns of a weight times them, and what makes the inputs divided.

Large inputs then meet finer steps than the small ones that they share a scale with. Source: Lin and others
2023, "AWQ", section 3.2: a power of each input's size, chosen by what it does to the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.weights.groups import quantize
from compiler.weights.moments import Moments, Squares
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Floats, convert, to_float32

EXPONENTS = (0.0, 0.2, 0.4, 0.6)  # of an input's root mean square
ROWS = 32  # of a weight, spread over it, that an exponent is tried on; more choose no better


@dataclass(frozen=True)
class Reader:
    """A weight [rows, inputs] that multiplies by the inputs, and how it will be stored."""

    weight: Array
    scheme: Scheme

    @property
    def sample(self) -> Floats:
        return to_float32(self.weight[:: max(1, len(self.weight) // ROWS)])


def best_factors(readers: Sequence[Reader], inputs: Moments | Squares) -> Floats:
    """Factors [inputs] whose errors in the readers' outputs are least; all one where none are better."""
    tried = [powers(inputs.mean, exponent) for exponent in EXPONENTS]
    samples = [(reader.sample, reader.scheme) for reader in readers]
    return min(tried, key=lambda factors: loss(samples, inputs, factors))


def powers(squares: Floats, exponent: float) -> Floats:
    """Powers of the inputs' sizes, whose geometric mean is one."""
    floor = max(float(squares.mean()) * 1e-6, 1e-30)
    logs = np.log(np.maximum(squares, floor)) * np.float32(exponent / 2)
    found: Floats = np.exp(logs - logs.mean())
    return found


def loss(samples: Sequence[tuple[Floats, Scheme]], inputs: Moments | Squares, factors: Floats) -> float:
    """The squares of the outputs' errors when some rows are stored times factors."""
    importance = inputs.mean / factors**2
    errors = (
        quantize(weight * factors, scheme, importance).dequantize() / factors - weight
        for weight, scheme in samples
    )
    return sum(map(inputs.cost, errors))


def divided(
    vector: Floats, factors: Floats, half: np.dtype[Any], offset: float = 0.0
) -> tuple[Floats, Floats]:
    """A vector whose items plus an offset are divided by about these factors, in values that 16 bits hold,
    and by how much they are exactly.
    """
    wanted: Floats = ((vector + offset) / factors - offset).astype(np.float32)
    made = to_float32(convert(wanted, half))
    exact = (vector + offset) / np.where(made + offset == 0, 1, made + offset)
    kept = (made + offset == 0) | ~np.isfinite(exact) | (exact <= 0)
    return np.where(kept, vector, made), np.where(kept, np.float32(1), exact)
