"""Weights that are stored as codes: what the codes, scales, zero points and minimums stand for."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from compiler.ir.types import ElementType
from compiler.weights.scheme import Scheme
from runtime_sim.arrays import Array

MIDDLE_OF_4_BITS = 8  # what 0 is stored as, where no zero points are


class Codes(Protocol):
    """A weight [rows, columns] as it is stored, with scales, zeros and minimums [rows, columns / group]."""

    @property
    def codes(self) -> Array:
        """Integers: from 0 on, but signed for 8 bits with neither zeros nor minimums."""

    @property
    def scales(self) -> Array:
        """Floats of 16 bits."""

    @property
    def zeros(self) -> Array | None:
        """Integers, or None where the scheme stores none."""

    @property
    def minimums(self) -> Array | None:
        """Floats of 16 bits, or None where the scheme stores none."""


def decoded(stored: Codes, scheme: Scheme, element: ElementType) -> Array:
    """(code - zero) * scale, or code * scale + minimum, rounded once to `element`; [rows, columns].

    The difference of two small integers is exact in f32, and so is its product with 16 bits. The sum with a
    minimum is one of f32.
    """
    rows, columns = stored.codes.shape
    steps = stored.codes.astype(np.float32).reshape(rows, columns // scheme.group, scheme.group)
    if stored.zeros is not None:
        steps -= stored.zeros.astype(np.float32)[:, :, None]
    elif scheme.bits == 4 and stored.minimums is None:
        steps -= MIDDLE_OF_4_BITS
    products = steps * stored.scales.astype(np.float32)[:, :, None]
    if stored.minimums is not None:
        products += stored.minimums.astype(np.float32)[:, :, None]
    return products.reshape(rows, columns).astype(element.numpy, copy=False)
