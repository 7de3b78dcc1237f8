"""Weights in memory, on their way to a tile: floats of 16 bits, or codes with scales and zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.weights.scheme import Scheme

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Quantized:
    """A weight [rows, columns] as codes, with scales, zeros and minimums [rows, columns / group].

    Codes are uint8, or int8 where the scheme's are signed; zeros are uint8, minimums of the type of the
    scales, and either is None where the scheme stores none. ValueError when the arrays are not those of the
    scheme; the range of codes is `check_range`'s.
    """

    codes: Array
    scales: Array
    zeros: Array | None
    scheme: Scheme
    minimums: Array | None = None

    def __post_init__(self) -> None:
        if problem := self.scheme.problem_in(self.codes.shape):
            raise ValueError(f"{self.scheme} {problem}")
        for name, array, stored in (
            ("zero points", self.zeros, self.scheme.zeros),
            ("minimums", self.minimums, self.scheme.minimum),
        ):
            if (array is not None) != stored:
                raise ValueError(f"{self.scheme} {'without' if stored else 'with'} {name}")
        rows, columns = self.codes.shape
        groups = (rows, columns // self.scheme.group)
        for name, values, dtype, shape in (
            ("codes", self.codes, self.scheme.codes, (rows, columns)),
            ("scales", self.scales, self.scheme.scale.numpy, groups),
            ("zeros", self.zeros, np.dtype(np.uint8), groups),
            ("minimums", self.minimums, self.scheme.scale.numpy, groups),
        ):
            if values is not None and (values.dtype, values.shape) != (dtype, shape):
                found, expected = f"{values.dtype}{list(values.shape)}", f"{dtype}{list(shape)}"
                raise ValueError(f"{name} are {found}, expected {expected} for {self.scheme}")

    def check_range(self) -> None:
        """ValueError when a code of 4 bits does not fit them: it would spoil the one beside it."""
        if self.codes.max(initial=0) > self.scheme.highest:
            raise ValueError(f"a code is {self.codes.max()}, which 4 bits do not hold")

    def dequantize(self) -> Floats:
        """The weight that the codes stand for, f32 [rows, columns]."""
        rows, columns = self.codes.shape
        codes = self.codes.reshape(rows, columns // self.scheme.group, self.scheme.group).astype(np.float32)
        codes -= self.scheme.implied_zero if self.zeros is None else self.zeros[:, :, None]
        codes *= self.scales[:, :, None].astype(np.float32)
        if self.minimums is not None:
            codes += self.minimums[:, :, None].astype(np.float32)
        return codes.reshape(rows, columns)


Weight = Quantized | Array  # [rows, columns]


def rows_of(weight: Weight) -> int:
    return len(weight.codes if isinstance(weight, Quantized) else weight)


def rectangle(weight: Weight, rows: slice | Array, columns: slice = slice(None)) -> Weight:
    """A part of a weight, of a slice of rows without copying; ValueError when it would split a group."""
    if not isinstance(weight, Quantized):
        return weight[rows, columns]
    start, stop, _ = columns.indices(weight.codes.shape[1])
    group = weight.scheme.group
    if start % group or stop % group:
        raise ValueError(f"columns {start}..{stop} split a group of {group}")
    part = rows, slice(start // group, stop // group)
    zeros = None if weight.zeros is None else weight.zeros[part]
    minimums = None if weight.minimums is None else weight.minimums[part]
    return Quantized(weight.codes[rows, start:stop], weight.scales[part], zeros, weight.scheme, minimums)


def joined(parts: Sequence[Weight]) -> Weight:
    """Parts with the same columns and stored alike as one, row after row."""
    if len(parts) == 1:
        return parts[0]
    codes = [part for part in parts if isinstance(part, Quantized)]
    if not codes:
        return np.concatenate([part for part in parts if not isinstance(part, Quantized)])
    zeros = [part.zeros for part in codes if part.zeros is not None]
    minimums = [part.minimums for part in codes if part.minimums is not None]
    return Quantized(
        np.concatenate([part.codes for part in codes]),
        np.concatenate([part.scales for part in codes]),
        np.concatenate(zeros) if zeros else None,
        codes[0].scheme,
        np.concatenate(minimums) if minimums else None,
    )


def to_float32(values: Array) -> Floats:
    """Values of any float type as f32, exactly; a view when they are f32 already."""
    if values.dtype.name == "bfloat16":  # bf16 is the upper half of an f32; several times faster than a cast
        wide = values.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False)


def convert(values: Array, dtype: np.dtype[Any]) -> Array:
    """Values in another float type whose range they are within, to nearest even."""
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    return to_float32(values).astype(dtype)
