"""Codes of 4 or 8 bits in words of 32."""

from __future__ import annotations

import numpy as np

from compiler.weights.stored import Array

WORD = 32  # bits


def fields(words: Array, bits: int) -> Array:
    """The fields of words, lowest bits first: [..., n] to uint8 [..., n * 32 / bits]."""
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return data
    halves = np.empty((*data.shape, 2), np.uint8)
    halves[..., 0] = data & 15
    halves[..., 1] = data >> 4
    return halves.reshape(*data.shape[:-1], -1)


def transposed(values: Array) -> Array:
    """[columns, rows], contiguous."""
    return np.ascontiguousarray(values.T)
