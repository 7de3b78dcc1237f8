"""Values of stored tensors: finite, and within the 16-bit type that they are converted to.

Magnitudes are compared as the words that hold them. With its sign bit cleared, the word of an IEEE float
grows with the magnitude, and infinity and NaN come after all numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from compiler.diagnostics import UserError
from compiler.weights.stored import to_float32
from frontend.sources.source import Source

Array = npt.NDArray[Any]


def exceeds(values: Array, limit: float) -> bool:
    """Whether a magnitude is above `limit`, or none at all: NaN. One look at each value, without a copy."""
    return values.size > 0 and peak(values) > word(values.dtype, limit)


def check_finite(source: Source, values: Array, first_row: int = 0) -> None:
    """Refuse NaN and infinity by key and index; `values` are the rows of `source` from `first_row` on."""
    finite = np.isfinite(values)
    if finite.all():
        return
    place = np.unravel_index(int(finite.argmin()), values.shape)
    index = [int(i) + (first_row if axis == 0 else 0) for axis, i in enumerate(place)]
    raise UserError(
        f"key {source.key} in {source.path} holds {values[place]} at index {index}\n"
        "no model computes with that: the file is damaged, or training it failed"
    )


def limited(values: Array, limit: float) -> Array:
    """Values within +-limit, in f32."""
    if values.dtype == np.float64:
        values = np.clip(values, -limit, limit)
    return np.clip(to_float32(values), -limit, limit)


def count_beyond(values: Array, limit: float) -> int:
    return int(np.count_nonzero(np.abs(values.astype(np.float64)) > limit))


def peak(values: Array) -> int:
    """The word of the largest magnitude, its sign bit cleared.

    The largest negative float is the highest unsigned word, the largest positive one the highest signed word.
    """
    size = values.dtype.itemsize
    words = values.reshape(-1).view(f"u{size}")
    magnitude = (1 << (8 * size - 1)) - 1
    return max(int(words.view(f"i{size}").max()), int(words.max()) & magnitude)


@lru_cache
def word(dtype: np.dtype[Any], limit: float) -> int:
    """The word of the largest value of a float type that is not above `limit`."""
    highest = min(limit, largest(dtype))
    nearest = np.array(highest, np.float64).astype(dtype)
    found = int(nearest.view(f"u{dtype.itemsize}"))
    return found - 1 if float(nearest) > highest else found


def largest(dtype: npt.DTypeLike) -> float:
    """The largest finite value of a float type."""
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
