"""How far two arrays are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Between an array and a reference of the same shape. NaN where the arrays hold something not finite."""

    cosine: float  # of the flattened arrays; 1 for equal ones, all zeros included
    max_error: float  # largest absolute difference
    differing: int  # items whose bits differ, or whose values do when the types differ

    def __str__(self) -> str:
        return f"cosine {self.cosine:.7f}  max error {self.max_error:.3g}  {self.differing} differ"


def compare(actual: np.ndarray, reference: np.ndarray) -> Difference:
    if actual.shape != reference.shape:
        raise ValueError(f"cannot compare {actual.shape} with {reference.shape}")
    a, b = (array.astype(np.float64).reshape(-1) for array in (actual, reference))
    same = bits(actual) == bits(reference) if actual.dtype == reference.dtype else a == b
    return Difference(cosine(a, b), float(np.abs(a - b).max(initial=0.0)), int((~same).sum()))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two float64 vectors; two zero vectors point the same way."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(np.array_equal(a, b))


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
