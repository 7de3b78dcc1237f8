"""A matrix read back from the coefficients of a net, by what the file says its regions hold.

Written from the description of the format and apart from the compiler's own packing. The names of regions are
those of `dialects.weights.region_name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from compiler.bmodel.container import WeightLocation
from compiler.diagnostics import UserError
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array
from runtime_sim.launch.loader import Region
from runtime_sim.launch.runtime import NUMPY_TYPES, RuntimeNet

_ROWS = re.compile(r'#chip\.joined<names = \["(?P<name>[^"]+)"\], dtype = (?P<scale>b?f16)>')
_TILE = re.compile(
    r'#chip\.packed<names = \["(?P<name>[^"]+)"\], row = (?P<row>\d+), rows = (?P<rows>\d+), '
    r"column = (?P<column>\d+), columns = (?P<columns>\d+), bits = (?P<bits>\d+), group = (?P<group>\d+), "
    r"symmetric = (?P<symmetric>true|false), scale = (?P<scale>b?f16), each = (true|false), "
    r"pieces = (?P<pieces>\d+)>"
)
_SHARE = re.compile(r"[^{]*\{(\d+):\d+:1\}")  # some rows of a tensor
MIDDLE = 8  # the code of 0 of 4 bits without zero points


@dataclass(frozen=True)
class Tile:
    """A tile [rows, columns] as it lies on the lanes of a chip; see `compiler.weights.tile`."""

    rows: int
    columns: int
    bits: int
    group: int
    zeros: bool
    scale: np.dtype
    pieces: int
    spec: ChipSpec

    @classmethod
    def of(cls, found: re.Match[str], spec: ChipSpec) -> Tile:
        rows, columns, bits, group, pieces = (
            int(found[name]) for name in ("rows", "columns", "bits", "group", "pieces")
        )
        zeros = bits < 16 and found["symmetric"] == "false"
        return cls(rows, columns, bits, group, zeros, NUMPY_TYPES[found["scale"]], pieces, spec)

    @property
    def slots(self) -> int:
        return -(-self.rows // self.spec.lanes)

    def decoded(self, data: Array) -> Array:
        """The weights that its bytes stand for, f32."""
        runs = data.reshape(self.pieces, self.spec.lanes, -1).swapaxes(0, 1).reshape(self.spec.lanes, -1)
        if self.bits == 16:
            return self._rows(runs, self.scale)[: self.rows, : self.columns].astype(np.float32)
        groups = self.columns // self.group
        sizes = [self.columns * self.bits // 8, 2 * groups, groups if self.zeros else 0]
        codes, scales, zeros = self._sections(runs, [self.slots * size for size in sizes])
        steps = self._codes(codes).astype(np.float32).reshape(-1, groups, self.group)
        if self.zeros:
            steps -= self._rows(zeros, np.dtype(np.uint8))[:, :, None]
        elif self.bits == 4:
            steps -= MIDDLE
        steps *= self._rows(scales, self.scale).astype(np.float32)[:, :, None]
        return steps.reshape(-1, self.columns)[: self.rows]

    def _sections(self, runs: Array, sizes: list[int]) -> list[Array]:
        """The parts of a run. Each begins at a vector width if the run has room for that, or an even byte."""
        width = self.spec.eu_bytes
        step = width if sum(round_up(size, width) for size in sizes) == runs.shape[1] else 2
        ends = accumulate(sizes, lambda end, size: round_up(end, step) + size)
        return [runs[:, end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def _codes(self, data: Array) -> Array:
        if self.bits == 8:
            return self._rows(data, np.dtype(np.uint8 if self.zeros else np.int8))
        pairs = self._rows(data, np.dtype(np.uint8))
        nibbles = [pairs & 15, pairs >> 4]
        if self.spec.native_int4:
            return np.stack(nibbles, axis=-1).reshape(len(pairs), -1)
        return np.concatenate(nibbles, axis=1)

    def _rows(self, data: Array, dtype: np.dtype) -> Array:
        """[slots of lanes, width]: row r is in lane r mod lanes."""
        lanes = np.ascontiguousarray(data).view(dtype).reshape(self.spec.lanes, self.slots, -1)
        return lanes.swapaxes(0, 1).reshape(self.slots * self.spec.lanes, -1)


def matrix(net: RuntimeNet, rows: int, columns: int) -> Array:
    """The matrix f32 [rows, columns] that is the largest tensor of a net; UserError where the file does not
    tell it.
    """
    whole = np.full((rows, columns), np.nan, np.float32)
    blob = net.memories[Region.COEFF]
    for place in _largest(net):
        data = blob[place.offset : place.offset + place.size]
        for row, column, part in _parts(place, data, columns, net.program.spec):
            here = whole[row : row + len(part), column : column + part.shape[1]]
            here[...] = part[: len(here)]
    if np.isnan(whole).any():
        raise UserError(f"the file does not tell where the matrix [{rows}, {columns}] of {net.name} is")
    return whole


def _largest(net: RuntimeNet) -> list[WeightLocation]:
    """The regions that hold parts of the tensor of which a net has the most bytes."""
    coeff = net.program.stage.coeff
    found: dict[str, list[WeightLocation]] = {}
    for place in coeff.locations if coeff else ():
        if named := _ROWS.fullmatch(place.name) or _TILE.fullmatch(place.name):
            found.setdefault(named["name"].partition("{")[0], []).append(place)
    return max(found.values(), key=lambda places: sum(place.size for place in places), default=[])


def _parts(
    place: WeightLocation, data: Array, columns: int, spec: ChipSpec
) -> Iterator[tuple[int, int, Array]]:
    """What a region holds of a matrix of so many columns, and where: its first row and column."""
    if found := _ROWS.fullmatch(place.name):
        yield _first(found["name"]), 0, data.view(NUMPY_TYPES[found["scale"]]).reshape(-1, columns)
    elif found := _TILE.fullmatch(place.name):
        tile = Tile.of(found, spec)
        yield _first(found["name"]) + int(found["row"]), int(found["column"]), tile.decoded(data)


def _first(name: str) -> int:
    """The first row of those that a name says."""
    share = _SHARE.fullmatch(name)
    return int(share[1]) if share else 0
