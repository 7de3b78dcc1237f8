"""The probabilities of the candidates for a token, in float32; `dialects.llm.NucleusOp` states them."""

from __future__ import annotations

import numpy as np

from runtime_sim.arrays import Array

LOWEST_TEMPERATURE = np.float32(2.0**-20)  # at which the first candidate is left, unless another is as likely
ABOVE = np.float32(1 + 2.0**-20)  # a sum that is above top_p by less is not


def nucleus_of(x: Array, temperature: Array, top_k: Array, top_p: Array, least: int) -> Array:
    """x [1, k], largest first, and settings of one item each -> [1, k]; the first `least` always stay."""
    scaled = (x - x[:, :1]) / np.maximum(temperature, LOWEST_TEMPERATURE)
    place = np.arange(x.shape[1])
    e = np.where(place < top_k, np.exp(scaled), np.float32(0))
    sums = np.cumsum(e, axis=1, dtype=np.float32)
    kept = np.where((sums < sums[:, -1:] * (top_p * ABOVE)) | (place < least), e, np.float32(0))
    y: Array = kept / kept.sum(axis=1, keepdims=True)
    return y
