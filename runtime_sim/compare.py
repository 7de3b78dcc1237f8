"""How far two arrays are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime_sim.arrays import Array


@dataclass(frozen=True)
class Difference:
    """Between an array and a reference of the same shape. NaN where the arrays hold something not finite."""

    cosine: float  # of the flattened arrays; 1 for equal ones, all zeros included
    max_error: float  # largest absolute difference
    max_ulp: int | None  # largest distance in steps of the type; None for different types or f64
    differing: int  # items whose bits differ, or whose values do when the types differ

    def __str__(self) -> str:
        ulp = "" if self.max_ulp is None else f"  ulp {self.max_ulp}"
        return f"cosine {self.cosine:.7f}  max error {self.max_error:.3g}{ulp}  {self.differing} differ"


def compare(actual: Array, reference: Array) -> Difference:
    if actual.shape != reference.shape:
        raise ValueError(f"cannot compare {actual.shape} with {reference.shape}")
    a, b = (array.astype(np.float64).reshape(-1) for array in (actual, reference))
    steps_exist = actual.dtype == reference.dtype and actual.dtype.itemsize <= 4
    max_ulp = ulp_distance(actual, reference) if steps_exist else None
    differing = count_differing(actual, reference)
    error = float(np.abs(a - b).max(initial=0.0))
    return Difference(cosine(a, b), error, max_ulp, differing)


def cosine(a: Array, b: Array) -> float:
    """Of two float64 vectors; two zero vectors point the same way."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0:
        return float(np.array_equal(a, b))
    return float(a @ b) / norms


def count_differing(actual: Array, reference: Array) -> int:
    if actual.dtype == reference.dtype:
        return int((_bits(actual) != _bits(reference)).sum())
    return int((actual.astype(np.float64) != reference.astype(np.float64)).sum())


def ulp_distance(actual: Array, reference: Array) -> int:
    """The most steps from one representable value to the next between two items. Both zeros are one value."""
    steps = np.abs(_ordered(actual) - _ordered(reference))
    return int(steps.max(initial=0))


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _ordered(array: Array) -> Array:
    """Integers in the order of the values, one step apart for neighbours."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    bits = _bits(array).astype(np.int64)
    sign = 1 << (8 * array.dtype.itemsize - 1)
    return np.where(bits & sign, sign - bits, bits)
