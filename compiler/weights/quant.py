"""Group quantization of weights, and the tiles that hold weights in the chip's DDR.

A group is `group` neighbours along a row (the input axis of a linear layer) that share one 16-bit
scale and one zero point:  weight = (code - zero) * scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Bytes = npt.NDArray[np.uint8]

CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85)  # parts of a group's range that 4 bits try; twice as many gain 1 %
SYMMETRIC_ZERO = 8  # the zero point of 4-bit codes that store none
LARGEST_WEIGHT = 1e18  # so that squares and their sums stay finite in f32
CHUNK_WEIGHTS = 1 << 17  # weights worked on at once: three f32 copies of them fit a 2 MiB cache
SECTION_BYTES = 64  # the chip's vector width: aligned operands are cheaper, and runs must be multiples of it


@dataclass(frozen=True, eq=False)
class Quantized:
    """A weight [rows, columns] as codes, with scales and zeros [rows, columns / group].

    Codes are uint8 0..15 for 4 bits and int8 -127..127 for 8 bits; scales are bfloat16 or float16; zeros are
    uint8 0..15, or None where they are implied: 8 for 4 bits, 0 for 8 bits.
    """

    codes: Array
    scales: Array
    zeros: Array | None
    bits: int
    group: int

    def tile(self, rows: slice, columns: slice = slice(None)) -> Quantized:
        """A rectangle of the weight, without copying; its column bounds must be multiples of the group."""
        start, stop, _ = columns.indices(self.codes.shape[1])
        if start % self.group or stop % self.group:
            raise ValueError(f"columns {start}..{stop} split a group of {self.group}")
        part = rows, slice(start // self.group, stop // self.group)
        zeros = None if self.zeros is None else self.zeros[part]
        return Quantized(self.codes[rows, start:stop], self.scales[part], zeros, self.bits, self.group)

    def dequantize(self) -> Floats:
        """The weight that the codes stand for, f32 [rows, columns]."""
        rows, columns = self.codes.shape
        codes = self.codes.reshape(rows, -1, self.group).astype(np.float32)
        if self.bits == 4:
            codes -= SYMMETRIC_ZERO if self.zeros is None else self.zeros[:, :, None]
        codes *= self.scales[:, :, None].astype(np.float32)
        return codes.reshape(rows, columns)


def quantize(weight: Array, bits: int, group: int, symmetric: bool, scale_dtype: npt.DTypeLike) -> Quantized:
    """Quantize a float weight [rows, columns], with scales that make the squared error of each group small.

    8 bits are always symmetric: the chip subtracts zeros in int8, where code - zero would overflow.
    Raises ValueError when the group does not divide the columns, a weight is not finite or out of all bounds,
    or what the codes stand for would not be finite in the type of the scales.
    """
    rows, columns = weight.shape
    if bits not in (4, 8):
        raise ValueError(f"cannot quantize to {bits} bits, only to 4 or 8")
    if columns % group:
        raise ValueError(f"{columns} columns are not a multiple of group {group}")
    codes = np.empty((rows * columns // group, group), np.uint8 if bits == 4 else np.int8)
    scales = np.empty(len(codes), scale_dtype)
    zeros = np.empty(len(codes), np.uint8) if bits == 4 and not symmetric else None
    groups = np.ascontiguousarray(weight).reshape(codes.shape)
    step = max(1, CHUNK_WEIGHTS // group)
    for start in range(0, len(codes), step):
        chunk = slice(start, start + step)
        search = _Search(groups[chunk], bits, zeros is not None, scales.dtype)
        search.run()
        codes[chunk] = search.codes().T
        scales[chunk] = search.scale
        if zeros is not None:
            zeros[chunk] = search.zero
    shape = (rows, columns // group)
    zeros = None if zeros is None else zeros.reshape(shape)
    quantized = Quantized(codes.reshape(rows, columns), scales.reshape(shape), zeros, bits, group)
    _check_decodes(quantized)
    return quantized


def _check_decodes(quantized: Quantized) -> None:
    """The chip decodes in the type of the scales, and rounding can carry a large weight beyond its end."""
    limit = float(ml_dtypes.finfo(quantized.scales.dtype).max)  # type: ignore[no-untyped-call]
    steps = 15 if quantized.bits == 4 else 127
    if steps * float(np.abs(quantized.scales.astype(np.float32)).max(initial=0)) <= limit:
        return
    peak = float(np.abs(quantized.dequantize()).max())
    if peak > limit:
        name = quantized.scales.dtype.name
        raise ValueError(f"decoded, it goes up to {peak:g}, which is beyond {name} ({limit:g})")


class _Search:
    """The best scale and zero point of each group of a chunk, among ranges clipped by a few ratios.

    Groups are columns here ([group, count]): numpy then works along contiguous rows with one scale per
    column, and reduces over the first axis, ten times as fast as over short rows.
    """

    def __init__(self, groups: Array, bits: int, asymmetric: bool, scale_dtype: np.dtype[Any]):
        self.weights: Floats = np.ascontiguousarray(to_float32(groups).T)
        self.work = np.empty_like(self.weights)
        self.rounded = np.empty_like(self.weights)
        self.scale_dtype = scale_dtype
        self.asymmetric = asymmetric
        self.ratios = CLIP_RATIOS if bits == 4 else CLIP_RATIOS[:1]
        self.lowest, self.highest = (0, 15) if bits == 4 else (-127, 127)
        zero = SYMMETRIC_ZERO if bits == 4 else 0
        count = self.weights.shape[1]
        self.error: Floats = np.full(count, np.inf, np.float32)
        self.scale: Floats = np.ones(count, np.float32)
        self.zero: Floats = np.full(count, zero, np.float32)

    def run(self) -> None:
        low, high = self.weights.min(axis=0), self.weights.max(axis=0)
        if not (low.min() >= -LARGEST_WEIGHT and high.max() <= LARGEST_WEIGHT):
            raise ValueError(f"the weight holds NaN or infinity, or magnitudes beyond {LARGEST_WEIGHT:g}")
        for ratio in self.ratios:
            if self.asymmetric:
                self._try(*self._asymmetric(np.minimum(low, 0) * ratio, np.maximum(high, 0) * ratio))
            else:
                self._try(self._symmetric(low * ratio, high * ratio), self.zero)
        self._try(self._least_squares(), self.zero)

    def _asymmetric(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        scale = self._stored((high - low) / self.highest)
        return scale, np.clip(np.rint(-low / scale), 0, self.highest)

    def _symmetric(self, low: Floats, high: Floats) -> Floats:
        """The scale that puts the end of larger magnitude on the lowest code; negative if that end is high.

        In 4 bits the lowest code (-8) lies one step further from zero than the highest (7), so that no code
        is wasted.
        """
        end = np.where(high > -low, high, low)
        return self._stored(end / (self.lowest - self.zero))

    def _least_squares(self) -> Floats:
        """The scale of least squared error for the codes of the best candidate so far."""
        steps = self._round(self.scale, self.zero)
        steps -= self.zero
        power = np.einsum("ij,ij->j", steps, steps)
        return self._stored(np.einsum("ij,ij->j", steps, self.weights) / np.maximum(power, 1))

    def _stored(self, scale: Floats) -> Floats:
        """The scale as its 16 bits will hold it; 1 where it vanishes, which rounds such weights to zero."""
        limit = 65504.0 if self.scale_dtype == np.float16 else 3e38
        stored = np.clip(scale, -limit, limit).astype(self.scale_dtype).astype(np.float32)
        return np.where(stored == 0, np.float32(1), stored)

    def _round(self, scale: Floats, zero: Floats) -> Floats:
        """Codes of all groups, as floats; `work` is left holding them before rounding."""
        np.multiply(self.weights, 1 / scale, out=self.work)
        self.work += zero
        np.rint(self.work, out=self.rounded)
        return np.clip(self.rounded, self.lowest, self.highest, out=self.rounded)

    def _try(self, scale: Floats, zero: Floats) -> None:
        """Keep scale and zero for the groups whose squared error they lessen."""
        self.work -= self._round(scale, zero)
        error = np.einsum("ij,ij->j", self.work, self.work) * scale**2
        better = error < self.error
        self.error, self.scale, self.zero = (
            np.where(better, new, old)
            for new, old in ((error, self.error), (scale, self.scale), (zero, self.zero))
        )

    def codes(self) -> Array:
        return self._round(self.scale, self.zero).astype(np.int8)


def to_float32(values: Array) -> Floats:
    """Values of any float type as f32, exactly; a view when they are f32 already."""
    if values.dtype.name == "bfloat16":  # bf16 is the upper half of an f32; several times faster than a cast
        wide = values.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False)


@dataclass(frozen=True)
class TileFormat:
    """How a tile of rows x columns weights lies in DDR: one run of bytes per lane, one run after the other.

    Lane l holds rows l, l + lanes, ...: the codes of all its rows (slots), then all scales, then all
    zeros. Rows that no weight fills are zero. A row of 4-bit codes is columns / 2 bytes, byte j holding the
    codes of columns j (low half) and j + columns / 2 (high half), so that two stride-1 instructions unpack
    it. Weights of 16 bits are bf16 or f16 values.
    """

    rows: int
    columns: int
    bits: int  # of a weight: 4, 8, or 16
    group: int = 0  # columns that share a scale; 0 for 16 bits
    symmetric: bool = False  # without zeros; 8-bit tiles never have them
    lanes: int = 64

    def __post_init__(self) -> None:
        if self.bits not in (4, 8, 16):
            raise ValueError(f"a tile holds weights of 4, 8 or 16 bits, not {self.bits}")
        if self.bits == 4 and self.columns % 2:
            raise ValueError(f"{self.columns} columns of 4 bits do not fill whole bytes")
        if self.bits != 16 and (self.group < 1 or self.columns % self.group):
            raise ValueError(f"{self.columns} columns are not a multiple of group {self.group}")

    @property
    def slots(self) -> int:
        """Rows of one lane."""
        return -(-self.rows // self.lanes)

    @property
    def has_zeros(self) -> bool:
        return self.bits == 4 and not self.symmetric

    @property
    def groups(self) -> int:
        """Groups of one row."""
        return self.columns // self.group if self.group else 0

    @property
    def code_bytes(self) -> int:
        return self.slots * self.columns * self.bits // 8

    @property
    def scale_bytes(self) -> int:
        return self.slots * self.groups * 2

    @property
    def zero_bytes(self) -> int:
        return self.slots * self.groups if self.has_zeros else 0

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
    def run_bytes(self) -> int:
        """Bytes of one lane, a multiple of 64."""
        return _align(_align(self.code_bytes, 2) + self.scale_bytes + self.zero_bytes, SECTION_BYTES)

    @property
    def total_bytes(self) -> int:
        return self.lanes * self.run_bytes

    def _end(self, offset: int) -> int:
        """Where the next section starts: a multiple of 64 if the run's padding allows, else of an item."""
        sections = (self.code_bytes, self.scale_bytes, self.zero_bytes)
        aligned = sum(_align(size, SECTION_BYTES) for size in sections)
        return _align(offset, SECTION_BYTES if aligned == self.run_bytes else 2)


def pack(tile: TileFormat, weights: Quantized | Array, out: Bytes | None = None) -> Bytes:
    """The bytes of one tile, [lanes, run], from its part of a weight (16-bit floats, or codes and scales).

    `weights` has the tile's columns and at most its rows; `out`, when given, receives the bytes.
    """
    values = weights.codes if isinstance(weights, Quantized) else weights
    _check_matches(tile, values.shape, weights)
    out = np.empty((tile.lanes, tile.run_bytes), np.uint8) if out is None else out
    out[:] = 0
    codes = _over_lanes(tile, values)
    if tile.bits == 4:
        half = tile.columns // 2
        codes = codes[:, :, :half] | codes[:, :, half:] << 4
    _write(out, tile.codes_offset, codes)
    if isinstance(weights, Quantized):
        _write(out, tile.scales_offset, _over_lanes(tile, weights.scales))
        if tile.has_zeros and weights.zeros is not None:
            _write(out, tile.zeros_offset, _over_lanes(tile, weights.zeros))
    return out


def unpack(tile: TileFormat, data: Bytes, dtype: npt.DTypeLike) -> Quantized | Array:
    """The inverse of `pack`, with all of the tile's rows; `dtype` is that of scales and 16-bit weights."""
    if tile.bits == 16:
        return _from_lanes(tile, data, tile.codes_offset, np.dtype(dtype), tile.columns)
    if tile.bits == 8:
        codes = _from_lanes(tile, data, tile.codes_offset, np.dtype(np.int8), tile.columns)
    else:
        nibbles = _from_lanes(tile, data, tile.codes_offset, np.dtype(np.uint8), tile.columns // 2)
        codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    scales = _from_lanes(tile, data, tile.scales_offset, np.dtype(dtype), tile.groups)
    zeros = None
    if tile.has_zeros:
        zeros = _from_lanes(tile, data, tile.zeros_offset, np.dtype(np.uint8), tile.groups)
    return Quantized(codes, scales, zeros, tile.bits, tile.group)


def _check_matches(tile: TileFormat, shape: tuple[int, ...], weights: Quantized | Array) -> None:
    if shape[1] != tile.columns or shape[0] > tile.rows:
        raise ValueError(f"weights {shape} do not fit a tile of {tile.rows} x {tile.columns}")
    if isinstance(weights, Quantized):
        ours = (weights.bits, weights.group, weights.zeros is not None)
        if ours != (tile.bits, tile.group, tile.has_zeros):
            raise ValueError(f"weights with (bits, group, zeros) = {ours} in {tile}")
    elif tile.bits != 16 or weights.dtype.itemsize != 2:
        raise ValueError(f"{weights.dtype} values in a tile of {tile.bits} bits")


def _over_lanes(tile: TileFormat, values: Array) -> Array:
    """Rows dealt over the lanes: [rows, width] to [lanes, slots, width], with zero rows added."""
    missing = tile.slots * tile.lanes - len(values)
    if missing:
        values = np.concatenate([values, np.zeros((missing, values.shape[1]), values.dtype)])
    return values.reshape(tile.slots, tile.lanes, -1).swapaxes(0, 1)


def _write(out: Bytes, offset: int, section: Array) -> None:
    lanes = len(out)
    data = np.ascontiguousarray(section).view(np.uint8).reshape(lanes, -1)
    out[:, offset : offset + data.shape[1]] = data


def _from_lanes(tile: TileFormat, data: Array, offset: int, dtype: np.dtype[Any], width: int) -> Array:
    size = tile.slots * width * dtype.itemsize
    section = np.ascontiguousarray(data[:, offset : offset + size]).view(dtype)
    rows = section.reshape(tile.lanes, tile.slots, width).swapaxes(0, 1)
    return rows.reshape(tile.slots * tile.lanes, width)[: tile.rows]


def _align(size: int, unit: int) -> int:
    return -(-size // unit) * unit
