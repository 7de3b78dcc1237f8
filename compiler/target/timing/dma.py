"""Cycles and traffic of DMA instructions, from their fields.

A command costs its bytes of DDR times a rate. A tensor command reads or writes DDR row by row; short rows
cost like longer ones, and a command that touches few pages of DDR uses only some of the four channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from compiler.target.costs import LOAD, LOCAL, MOVE, STORE
from compiler.target.spec import ChipSpec

Fields = dict[str, int]

ITEM_BYTES = (1, 2, 4, 2, 4, 2, 1)  # by code of the data format; 4-bit items are charged as bytes
INDEX_BYTES = 4
CHANNELS = 4  # of DDR


class Shape(NamedTuple):
    """Sizes or strides, the latter in items."""

    n: int
    c: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return self.n * self.c * self.h * self.w


class Traffic(NamedTuple):
    """Bytes of one command: read from DDR, written to DDR, and of its data proper (without indices)."""

    read: int
    written: int
    data: int


@dataclass(frozen=True)
class DmaModel:
    """The cost of one chip's DMA commands in cycles of the estimates.

    `cautious` adds latency, charges copies within DDR in full, and goes by the DMA's own clock.
    """

    spec: ChipSpec
    cautious: bool = False

    def cycles(self, name: str, kind: str, fields: Fields) -> int:
        rule = RULES.get(name)
        if rule is None:
            return 0
        way = self.direction(fields)
        work = rule(self, kind, fields, way)
        if not self.cautious:
            return int(self.spec.costs.latency[way] + work)
        return int((self.spec.costs.cautious_latency[way] + work) * self.spec.dma_cycle)

    def shared(self, name: str, kind: str, fields: Fields) -> float:
        """Cycles for which a command has the DDR that all cores share, apart from its own limits."""
        moved = self.traffic(name, kind, fields)
        return (moved.read + moved.written) * (self.spec.costs.shared_rate or 0) * self.spec.dma_cycle

    def direction(self, fields: Fields) -> str:
        """Which way the data goes; a constant comes from local memory, so to say."""
        from_local = fields["fill_constant_en"] or self._is_local(fields, "src")
        to_local = self._is_local(fields, "dst")
        if from_local:
            return LOCAL if to_local else STORE
        return LOAD if to_local else MOVE

    def _is_local(self, fields: Fields, side: str) -> bool:
        address = fields[f"{side}_start_addr_h8"] << 32 | fields[f"{side}_start_addr_l32"]
        return 0 <= address - self.spec.dma_local_base < self.spec.local_bytes

    def traffic(self, name: str, kind: str, fields: Fields) -> Traffic:
        """What a command moves. Rows broadcast by a zero stride count as often as they are read."""
        if name not in RULES:
            return Traffic(0, 0, 0)
        way = self.direction(fields)
        size = _moved(name, kind, fields, way) * ITEM_BYTES[fields["src_data_format"]]
        index = 0
        if "index_hsize" in fields and not self._is_local(fields, "index"):
            index = INDEX_BYTES * fields["index_csize"] * fields["index_hsize"]
        return Traffic(size * (way in (LOAD, MOVE)) + index, size * (way in (STORE, MOVE)), size)

    def _row(self, row_bytes: int) -> int:
        """What a row of DDR is charged as, in bytes."""
        return max(self.spec.costs.short_row, row_bytes)

    def _tensor(self, kind: str, fields: Fields, way: str) -> float:
        if kind == "broadcast":
            return self._broadcast(fields)
        shape, strides = outside(kind, fields, way)
        item = ITEM_BYTES[fields["src_data_format"]]
        rows, run = _rows(shape, strides)
        if kind in ("collect", "distribute"):
            rows, run = rows * run, 1
        charged = run * item if way == MOVE and not self.cautious else self._row(run * item)
        cost = rows * charged * self.spec.costs.tensor_rate[way]
        return cost if way in (MOVE, LOCAL) else cost * CHANNELS / self._channels(shape, strides, item)

    def _channels(self, shape: Shape, strides: Shape, item: int) -> int:
        """How many of the DDR channels a tensor uses, by its n and c strides."""
        return channels(shape.n, strides.n * item, shape.c * strides.c * item, self.spec.costs.page)

    def _broadcast(self, fields: Fields) -> float:
        width = fields["src_wsize"] * ITEM_BYTES[fields["src_data_format"]]
        rows = fields["src_nsize"] * fields["src_csize"] * fields["src_hsize"]
        return rows * self._row(width) * self.spec.costs.broadcast_rate

    def _matrix(self, kind: str, fields: Fields, way: str) -> float:
        """Rows of blocks: what can be too short is a block, the part of a row that one lane holds."""
        outer, inner = ("dst", "src") if way == STORE else ("src", "dst")
        item = ITEM_BYTES[fields["src_data_format"]]
        moved = fields[f"{outer}_hsize"] * fields[f"{outer}_wsize"] * item
        block = fields[f"{inner}_wsize"] * item
        return moved * max(1.0, self.spec.costs.short_row / block) * self.spec.costs.matrix_rate[way]

    def _rows_by_index(self, kind: str, fields: Fields, way: str) -> float:
        """Gather and scatter. Only DDR to DDR was seen; elsewhere each row is charged as a tensor's."""
        rows = max(fields["src_csize"], fields["index_csize"]) * fields["index_hsize"]
        width = fields["src_wsize"] * ITEM_BYTES[fields["src_data_format"]]
        if way == MOVE and not self.cautious:
            return rows * width * self.spec.costs.gather_rate
        return rows * self._row(width) * self.spec.costs.tensor_rate[way]

    def _linear(self, kind: str, fields: Fields, way: str) -> float:
        """Never seen; a run of bytes, charged as a tensor of one row."""
        size = fields["move_length"] * ITEM_BYTES[fields["src_data_format"]]
        if kind == "broadcast":
            return self._row(size) * self.spec.costs.broadcast_rate
        touched = max(1, min(CHANNELS, -(-size // self.spec.costs.page)))
        return self._row(size) * CHANNELS / touched * self.spec.costs.tensor_rate[way]

    def _by_item(self, kind: str, fields: Fields, way: str) -> float:
        """Never seen; each item is a row of its own."""
        items = outside(kind, fields, way)[0].size
        return items * self.spec.costs.short_row * self.spec.costs.tensor_rate[way]


def outside(kind: str, fields: Fields, way: str) -> tuple[Shape, Shape]:
    """Shape and strides of a tensor command's DDR side (its source, where both sides are local or in DDR)."""
    side = "dst" if way == STORE else "src"
    shape = _shape(fields, side, kind)
    if fields["stride_enable"]:
        return shape, _strides(fields, side)
    _, c, h, w = shape
    return shape, Shape(c * h * w, h * w, w, 1)


def _shape(fields: Fields, side: str, kind: str) -> Shape:
    source = Shape(fields["src_nsize"], fields["src_csize"], fields["src_hsize"], fields["src_wsize"])
    if side == "src":
        return source
    n, c, h, w = source
    if kind == "transpose":
        return Shape(c, n, h, w)
    if kind in ("collect", "distribute"):
        return Shape(n, w, h, c)
    given = Shape(fields["dst_nsize"], fields["dst_csize"], fields["dst_hsize"], fields["dst_wsize"])
    return source if fields["nchw_copy"] or 0 in given else given


def _strides(fields: Fields, side: str) -> Shape:
    names = (f"{side}_{axis}stride" for axis in "nchw")
    return Shape(*(fields[name] for name in names))


def _rows(shape: Shape, strides: Shape) -> tuple[int, int]:
    """How many rows lie in one piece, and of how many items; n and c always start new rows."""
    n, c, h, w = shape
    if w > 1 and strides.w != 1:
        return shape.size, 1
    return (n * c, h * w) if strides.h == w else (n * c * h, w)


@lru_cache(maxsize=4096)
def channels(batches: int, stride: int, size: int, page: int) -> int:
    """How many channels the first pages lie on that a tensor touches, as many pages as there are channels.

    Each of its `batches` begins `stride` bytes after the one before and counts as `size` bytes without gaps.
    """
    first: dict[int, None] = {}
    for start in range(0, max(batches, 1) * stride, stride) if stride else (0,):
        end = start + min(max(size, 1), CHANNELS * page)
        first |= dict.fromkeys(range(start // page, (end - 1) // page + 1))
        if len(first) >= CHANNELS:
            break
    return len({touched % CHANNELS for touched in list(first)[:CHANNELS]})


def _moved(name: str, kind: str, fields: Fields, way: str) -> int:
    """Items that pass through the DDR side."""
    if name == "dma_general":
        return fields["move_length"]
    if "index_hsize" in fields:
        return max(fields["src_csize"], fields["index_csize"]) * fields["index_hsize"] * fields["src_wsize"]
    if name == "dma_matrix":
        side = "dst" if way == STORE else "src"
        return fields[f"{side}_hsize"] * fields[f"{side}_wsize"]
    return outside(kind, fields, way)[0].size


Rule = Callable[[DmaModel, str, Fields, str], float]
RULES: dict[str, Rule] = {
    "dma_tensor": DmaModel._tensor,
    "dma_matrix": DmaModel._matrix,
    "dma_gather": DmaModel._rows_by_index,
    "dma_scatter": DmaModel._rows_by_index,
    "dma_general": DmaModel._linear,
    "dma_cw_transpose": DmaModel._by_item,
    "dma_masked_select": DmaModel._by_item,
    "dma_nonzero": DmaModel._by_item,
    "dma_reverse": DmaModel._by_item,
}
