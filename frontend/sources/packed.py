"""Linears whose weight a quantizer stored as codes in words, with scales and zero points beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compiler.diagnostics import UserError
from compiler.ir.types import BF16, ElementType
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Quantized, to_float32
from frontend.checkpoint import StoredTensor
from frontend.values import check_finite, exceeds, largest

MIDDLE = {4: 8, 8: 128}  # by bits: the code of weight 0 where a quantizer has no zero points


@dataclass(frozen=True)
class InputOrder:
    """Inputs by their groups, and within a group as they come, [inputs] i32: a source of indices."""

    g_idx: StoredTensor
    scheme: None = None
    dtype: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.g_idx.shape

    @property
    def nbytes(self) -> int:
        return self.g_idx.nbytes

    @property
    def key(self) -> str:
        return self.g_idx.key

    @property
    def path(self) -> Path:
        return self.g_idx.path

    def read(self, rows: slice = slice(None)) -> Array:
        return np.argsort(self.g_idx.read(), kind="stable").astype(np.int32)[rows]


@dataclass(frozen=True)
class PackedLinear(ABC):
    """The weight [outputs, inputs] of a linear.

    `has_zeros` and `scale` say how the compiler is to have it. Zero points may be left out where all are the
    middle of the codes, and scales of another type than those of the checkpoint are rounded to it.
    """

    words: StoredTensor
    scales: StoredTensor
    zeros: StoredTensor | None
    shape: tuple[int, int]
    bits: int
    group: int
    g_idx: StoredTensor | None = None  # the group of each input, where they are not in order
    has_zeros: bool = True
    scale: ElementType = BF16

    @abstractmethod
    def codes(self) -> Array:
        """uint8 [outputs, inputs], as stored."""

    @abstractmethod
    def zero_points(self) -> Array:
        """uint8 [outputs, groups]; only of one that stores them."""

    @abstractmethod
    def scale_rows(self) -> Array:
        """[outputs, groups], of the stored type."""

    @property
    def scheme(self) -> Scheme:
        return Scheme(self.bits, self.group, self.has_zeros, self.scale)

    @property
    def key(self) -> str:
        return self.words.key

    @property
    def path(self) -> Path:
        return self.words.path

    @property
    def dtype(self) -> None:
        return None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.words, self.scales, self.zeros) if tensor is not None)

    def needs_zeros(self) -> bool:
        """Whether some zero point is another than that of weights without."""
        return self.zeros is not None and bool((self.zero_points() != MIDDLE[self.bits]).any())

    def taken(self, has_zeros: bool, scale: ElementType) -> PackedLinear:
        """The same, for a program that stores zero points or none, and has scales of that type."""
        return replace(self, has_zeros=has_zeros, scale=scale)

    @property
    def order(self) -> InputOrder | None:
        """Which input each column of `read` is for; None where that is the model's order."""
        return InputOrder(self.g_idx) if self.g_idx else None

    def read(self, rows: slice = slice(None)) -> Quantized:
        codes, zeros = self.codes()[rows], None
        if self.order:
            codes = codes[:, self.order.read()]
        if self.has_zeros:
            zeros = self._zeros()[rows]
        elif self.scheme.signed:
            codes = (codes ^ np.uint8(MIDDLE[8])).view(np.int8)
        return Quantized(codes, self._scales()[rows], zeros, self.scheme)

    def _zeros(self) -> Array:
        if self.zeros is not None:
            return self.zero_points()
        return np.full((self.shape[0], self.shape[1] // self.group), MIDDLE[self.bits], np.uint8)

    def _scales(self) -> Array:
        """In the wanted type; UserError where one is no number, or beyond that type."""
        values, wanted = self.scale_rows(), self.scale.numpy
        limit = largest(wanted)
        if exceeds(values, limit):
            check_finite(self.scales, self.scales.read())
            where, peak = f"key {self.scales.key} in {self.scales.path}", np.abs(to_float32(values)).max()
            raise UserError(f"{where} holds {peak:g}, which is beyond {wanted} (+-{limit:g})")
        return values.astype(wanted)
