"""The tiles that hold weights in DDR: their format, and the bytes of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.ir.types import Attribute, ElementType, attr_def
from compiler.sizes import round_up
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Quantized, Weight

Bytes = npt.NDArray[np.uint8]


@attr_def("weights.tile")
@dataclass(frozen=True)
class Tile(Attribute):
    """How a tile of rows x columns weights lies in DDR: one run of bytes per lane, one run after the other.

    Lane l holds rows l, l + lanes, ...: the codes of all its rows (slots), then all scales, then all
    zeros or minimums. Rows that no weight fills are zero. A row of 4-bit codes is columns / 2 bytes, byte j
    holding the codes of columns j (low half) and j + columns / 2 (high half), so that two stride-1
    instructions unpack it; or, with `neighbours`, of 2 j and 2 j + 1, as a unit that has 4-bit items reads
    them. Weights that are stored in a 16-bit type are their own codes, and a matrix operand
    as they lie: zeros fill up each row to whole sections.
    """

    rows: int
    columns: int
    stored: ElementType | Scheme
    lanes: int
    section: int  # bytes of the vector width: aligned operands are cheaper, and runs are multiples of it
    neighbours: bool = False

    def problem(self) -> str | None:
        if min(self.rows, self.columns, self.lanes) < 1 or self.section < 4:
            return "has no rows, columns, lanes or bytes"
        if isinstance(self.stored, Scheme):
            return self.stored.problem_in((self.rows, self.columns))
        return None if self.stored.bits == 16 else f"holds {self.stored}, expected 16 bits or a scheme"

    @property
    def scheme(self) -> Scheme | None:
        return self.stored if isinstance(self.stored, Scheme) else None

    @property
    def bits(self) -> int:
        """Of one weight."""
        return self.stored.bits

    @property
    def slots(self) -> int:
        """Rows of one lane."""
        return -(-self.rows // self.lanes)

    @property
    def pitch(self) -> int:
        """Codes from one row of a lane to the next."""
        return self.columns if self.scheme is not None else round_up(self.columns, self.section // 2)

    @property
    def groups(self) -> int:
        """Groups of one row."""
        return self.columns // self.scheme.group if self.scheme is not None else 0

    @property
    def code_bytes(self) -> int:
        return self.slots * self.pitch * self.bits // 8

    @property
    def scale_bytes(self) -> int:
        return self.slots * self.groups * 2

    @property
    def zero_bytes(self) -> int:
        return self.slots * self.groups if self.scheme is not None and self.scheme.zeros else 0

    @property
    def minimum_bytes(self) -> int:
        return self.scale_bytes if self.scheme is not None and self.scheme.minimum else 0

    @property
    def codes_offset(self) -> int:
        return 0

    @property
    def scales_offset(self) -> int:
        return self._end(self.code_bytes)

    @property
    def zeros_offset(self) -> int:
        return self._end(self.scales_offset + self.scale_bytes)

    @property
    def minimums_offset(self) -> int:
        return self._end(self.zeros_offset + self.zero_bytes)

    @property
    def run_bytes(self) -> int:
        """Bytes of one lane, a multiple of `section`."""
        beside = self.scale_bytes + self.zero_bytes + self.minimum_bytes
        return round_up(round_up(self.code_bytes, 2) + beside, self.section)

    @property
    def total_bytes(self) -> int:
        return self.lanes * self.run_bytes

    def _end(self, offset: int) -> int:
        """Where the next part starts: a multiple of `section` if the run's padding allows, else of two."""
        sections = (self.code_bytes, self.scale_bytes, self.zero_bytes, self.minimum_bytes)
        aligned = sum(round_up(size, self.section) for size in sections)
        return round_up(offset, self.section if aligned == self.run_bytes else 2)


def pack(tile: Tile, weights: Weight) -> Bytes:
    """The bytes of one tile, [lanes, run], from its part of a weight: the tile's columns, at most its rows.

    ValueError when the part is stored in another way than the tile says.
    """
    values = weights.codes if isinstance(weights, Quantized) else weights
    _check_matches(tile, values.shape, weights)
    if tile.pitch > tile.columns:
        values = np.pad(values, [(0, 0), (0, tile.pitch - tile.columns)])
    out = np.zeros((tile.lanes, tile.run_bytes), np.uint8)
    codes = _over_lanes(tile, values)
    if tile.bits == 4:
        low, high = halves(tile)
        codes = codes[:, :, low] | codes[:, :, high] << 4
    _write(out, tile.codes_offset, codes)
    if isinstance(weights, Quantized):
        _write(out, tile.scales_offset, _over_lanes(tile, weights.scales))
        if weights.zeros is not None:
            _write(out, tile.zeros_offset, _over_lanes(tile, weights.zeros))
        if weights.minimums is not None:
            _write(out, tile.minimums_offset, _over_lanes(tile, weights.minimums))
    return out


def halves(tile: Tile) -> tuple[slice, slice]:
    """The columns whose 4-bit codes lie in the low halves of a row's bytes, and in the high ones."""
    if tile.neighbours:
        return slice(0, None, 2), slice(1, None, 2)
    return slice(tile.columns // 2), slice(tile.columns // 2, None)


def unpack(tile: Tile, data: Bytes) -> Weight:
    """The inverse of `pack`, with all of the tile's rows."""
    if tile.scheme is None:
        assert isinstance(tile.stored, ElementType)
        return _from_lanes(tile, data, tile.codes_offset, tile.stored.numpy, tile.pitch)[:, : tile.columns]
    if tile.bits == 8:
        codes = _from_lanes(tile, data, tile.codes_offset, tile.scheme.codes, tile.columns)
    else:
        nibbles = _from_lanes(tile, data, tile.codes_offset, np.dtype(np.uint8), tile.columns // 2)
        codes = np.empty((len(nibbles), tile.columns), np.uint8)
        low, high = halves(tile)
        codes[:, low], codes[:, high] = nibbles & 15, nibbles >> 4
    floats, bytes_ = tile.scheme.scale.numpy, np.dtype(np.uint8)
    scales = _from_lanes(tile, data, tile.scales_offset, floats, tile.groups)
    zeros = minimums = None
    if tile.scheme.zeros:
        zeros = _from_lanes(tile, data, tile.zeros_offset, bytes_, tile.groups)
    if tile.scheme.minimum:
        minimums = _from_lanes(tile, data, tile.minimums_offset, floats, tile.groups)
    return Quantized(codes, scales, zeros, tile.scheme, minimums)


def _check_matches(tile: Tile, shape: tuple[int, ...], weights: Weight) -> None:
    if shape[1] != tile.columns or shape[0] > tile.rows:
        raise ValueError(f"weights {shape} do not fit a tile of {tile.rows} x {tile.columns}")
    if isinstance(weights, Quantized):
        if weights.scheme != tile.stored:
            raise ValueError(f"weights of {weights.scheme} in a tile of {tile.stored}")
    elif not isinstance(tile.stored, ElementType) or weights.dtype != tile.stored.numpy:
        raise ValueError(f"{weights.dtype} values in a tile of {tile.stored}")


def _over_lanes(tile: Tile, values: Array) -> Array:
    """Rows dealt over the lanes: [rows, width] to [lanes, slots, width], with zero rows added."""
    missing = tile.slots * tile.lanes - len(values)
    if missing:
        values = np.concatenate([values, np.zeros((missing, values.shape[1]), values.dtype)])
    return values.reshape(tile.slots, tile.lanes, -1).swapaxes(0, 1)


def _write(out: Bytes, offset: int, section: Array) -> None:
    lanes = len(out)
    data = np.ascontiguousarray(section).view(np.uint8).reshape(lanes, -1)
    out[:, offset : offset + data.shape[1]] = data


def _from_lanes(tile: Tile, data: Array, offset: int, dtype: np.dtype[Any], width: int) -> Array:
    size = tile.slots * width * dtype.itemsize
    section = np.ascontiguousarray(data[:, offset : offset + size]).view(dtype)
    rows = section.reshape(tile.lanes, tile.slots, width).swapaxes(0, 1)
    return rows.reshape(tile.slots * tile.lanes, width)[: tile.rows]
