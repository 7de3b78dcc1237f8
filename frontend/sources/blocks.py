"""Parameters from a GGUF file: codes where its blocks are some that the chip decodes, floats of all others.

The blocks (github.com/ggml-org/llama.cpp, ggml/src/ggml-common.h): 32 weights along a row, in
  Q4_0  d f16, 16 bytes                 (code - 8) * d
  Q4_1  d f16, m f16, 16 bytes          code * d + m
  Q8_0  d f16, 32 signed bytes          code * d
where the low halves of the 16 bytes are the first 16 codes, and the high halves the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from compiler.diagnostics import UserError
from compiler.files import reason
from compiler.gguf import GgufTensor
from compiler.ir.types import F16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized

BLOCK = 32
ROWS_AT_ONCE = 1024  # in f32, while blocks become values of 16 bits
SCHEMES = {
    Kind.Q4_0: Scheme(4, BLOCK, False, F16),
    Kind.Q4_1: Scheme(4, BLOCK, False, F16, minimum=True),
    Kind.Q8_0: Scheme(8, BLOCK, False, F16),
}
FLOATS = {
    Kind.F32: np.dtype(np.float32),
    Kind.F16: np.dtype(np.float16),
    Kind.BF16: np.dtype(ml_dtypes.bfloat16),
}

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Blocks:
    """A tensor of the file as a parameter of `shape`; how its rows are stored is its subclass's to say.

    `order` has, for each row of the parameter, the row of the tensor, where they do not lie in order.
    """

    tensor: GgufTensor
    path: Path
    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None

    @property
    def key(self) -> str:
        return self.tensor.name

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def rows(self, rows: slice) -> Bytes:
        """The bytes of rows (first axis) of the parameter, [rows, ..., bytes of a row]."""
        if self.order is None:
            first, stop, _ = rows.indices(self.tensor.shape[0])
            return self._bytes(first, max(stop, first))
        return self._bytes(0, self.tensor.shape[0])[list(self.order[rows])]

    def _bytes(self, first: int, stop: int) -> Bytes:
        shape = (stop - first, *self.tensor.shape[1:-1], self.tensor.row_bytes)
        if len(self.tensor.shape) == 1:
            shape = (stop - first, self.tensor.row_bytes // self.tensor.shape[0])
        size = self.nbytes // self.tensor.shape[0]
        try:
            data = np.fromfile(self.path, np.uint8, prod(shape), offset=self.tensor.start + first * size)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {reason(error)}") from error
        if data.size != prod(shape):
            raise UserError(f"{self.path} has become shorter while it was read")
        return data.reshape(shape)


@dataclass(frozen=True)
class FloatBlocks(Blocks):
    """Floats, those of 16 or 32 bits as they are and others as what their blocks stand for, in f32.

    `added` is what the parameter is more than the tensor, as where a norm's weight is stored plus one. What
    blocks stand for is rounded to `rounded` part by part, which for a table of words spares gigabytes.
    """

    added: float = 0.0
    rounded: np.dtype[Any] | None = None
    scheme: None = None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return FLOATS.get(self.tensor.kind)

    def read(self, rows: slice = slice(None)) -> Array:
        data, stored = self.rows(rows), FLOATS.get(self.tensor.kind)
        values = data.view(stored) if stored is not None else self._dequantized(data)
        if self.added:
            values = values.astype(np.float32) + np.float32(self.added)
        return values.reshape(len(data), *self.shape[1:])

    def _dequantized(self, data: Bytes) -> Array:
        values = np.empty((len(data), *self.tensor.shape[1:]), self.rounded or np.float32)
        for first in range(0, len(data), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            values[part] = dequantize(data[part], self.tensor.kind)
        return values


@dataclass(frozen=True)
class CodeBlocks(Blocks):
    """Codes of a matrix, as the file has them."""

    dtype: None = None

    @property
    def scheme(self) -> Scheme:
        return SCHEMES[self.tensor.kind]

    def read(self, rows: slice = slice(None)) -> Quantized:
        data = self.rows(rows)
        blocks = data.reshape(len(data), self.shape[1] // BLOCK, self.tensor.block[1])
        scales, rest = _floats(blocks)
        minimums = None
        if self.scheme.minimum:
            minimums, rest = _floats(rest)
        halves = rest if self.scheme.bits == 8 else np.concatenate([rest & 15, rest >> 4], axis=2)
        for name, values in (("scale", scales), ("minimum", minimums)):
            if values is not None and not np.isfinite(values).all():
                raise UserError(f"{self.path}: {self.key} has a {name} that is not finite")
        codes = np.ascontiguousarray(halves).view(self.scheme.codes).reshape(len(data), self.shape[1])
        return Quantized(codes, scales, None, self.scheme, minimums)


def _floats(blocks: Bytes) -> tuple[Array, Bytes]:
    """The f16 at the start of each block, and what is behind."""
    return np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0], blocks[:, :, 2:]
