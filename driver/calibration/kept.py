"""What takes the place of a checkpoint's parameters: vectors in memory, weights by factors, codes in a file
without a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Floats, Quantized, rectangle, to_float32
from frontend.sources.source import Source

ROWS = 256  # of a matrix, multiplied at a time: memory holds few of them as f32


@dataclass(frozen=True, eq=False)
class Replaced:
    """A source in the place of another, which messages go on naming."""

    before: Source

    @property
    def shape(self) -> tuple[int, ...]:
        return self.before.shape

    @property
    def nbytes(self) -> int:
        return self.before.nbytes

    @property
    def key(self) -> str:
        return self.before.key

    @property
    def path(self) -> Path:
        return self.before.path


@dataclass(frozen=True, eq=False)
class Vector(Replaced):
    """Floats in memory."""

    values: Floats
    scheme: None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, rows: slice = slice(None)) -> Array:
        return self.values[rows].copy()


@dataclass(frozen=True, eq=False)
class Scaled(Replaced):
    """A matrix with its columns and rows times factors, rounded to the type that it is stored in."""

    columns: Floats  # [columns]
    rows: Floats  # [rows, 1]
    scheme: None = None

    @classmethod
    def of(cls, source: Source) -> Scaled:
        """By no factors yet."""
        rows, columns = source.shape
        return cls(source, np.ones(columns, np.float32), np.ones((rows, 1), np.float32))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self.before.dtype

    def read(self, rows: slice = slice(None)) -> Array:
        values, factors = self.before.read(rows), self.rows[rows]
        assert not isinstance(values, Quantized)
        for start in range(0, len(values), ROWS):
            some = slice(start, start + ROWS)
            values[some] = to_float32(values[some]) * self.columns * factors[some]
        return values


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, file: IO[bytes]) -> Array:
        """At any time, by any thread: the file's own position is left alone."""
        count = self.dtype.itemsize * int(np.prod(self.shape))
        data = os.pread(file.fileno(), count, self.offset)
        return np.frombuffer(bytearray(data), self.dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Codes(Replaced):
    """Codes in a file, those of 4 bits two in a byte."""

    scheme: Scheme
    file: IO[bytes]
    places: Sequence[Place]  # of codes, scales, and zeros where there are some
    dtype: None = None

    @property
    def stored(self) -> list[Array]:
        """As they are in the file."""
        return [place.read(self.file) for place in self.places]

    def read(self, rows: slice = slice(None)) -> Quantized:
        codes, scales, *zeros = self.stored
        if self.scheme.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
        found = rectangle(Quantized(codes, scales, zeros[0] if zeros else None, self.scheme), rows)
        assert isinstance(found, Quantized)
        return found


class Shelf:
    """A file that codes are written to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def put(self, source: Source, weight: Quantized) -> Codes:
        codes = weight.codes
        if weight.scheme.bits == 4:
            codes = codes[:, ::2] | codes[:, 1::2] << 4
        arrays = [each for each in (codes, weight.scales, weight.zeros) if each is not None]
        return self.put_stored(source, weight.scheme, arrays)

    def put_stored(self, source: Source, scheme: Scheme, arrays: Sequence[Array]) -> Codes:
        """What `Codes.stored` says."""
        return Codes(source, scheme, self.file, [self._write(array) for array in arrays])

    def _write(self, array: Array) -> Place:
        place = Place(self.file.seek(0, os.SEEK_END), array.dtype, array.shape)
        self.file.write(np.ascontiguousarray(array).view(np.uint8).data)
        self.file.flush()
        return place


@contextmanager
def shelf(folder: Path) -> Iterator[Shelf]:
    """One in a folder, gone when the block or the process ends."""
    with TemporaryFile(dir=folder) as file:
        yield Shelf(file)
