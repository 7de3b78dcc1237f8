"""What DMA instructions touch, in local memory and outside of it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges.boxes import (
    F32,
    NIBBLES,
    Access,
    Box,
    Fields,
    Rule,
    Shape,
    Tensor,
    eu_items,
    local_boxes,
    packed_strides,
    runs,
)


def local_address(address: int, spec: ChipSpec) -> int | None:
    """What a DMA address is in local memory, None when it is elsewhere."""
    offset = address - spec.dma_local_base
    return offset if 0 <= offset < spec.local_bytes else None


@dataclass(frozen=True)
class _Dma:
    """Builds the accesses of one DMA instruction. Either side may be local or global memory."""

    fields: Fields
    spec: ChipSpec

    @property
    def nibbles(self) -> int:
        return NIBBLES[self.fields["src_data_format"]]

    def shape(self, side: str) -> Shape:
        return tuple(self.fields[f"{side}_{axis}size"] for axis in "nchw")  # type: ignore[return-value]

    def strides(self, side: str) -> Shape:
        return tuple(self.fields.get(f"{side}_{axis}stride", 0) for axis in "nchw")  # type: ignore[return-value]

    def address(self, side: str) -> int:
        return self.fields[f"{side}_start_addr_h8"] << 32 | self.fields[f"{side}_start_addr_l32"]

    def local_address(self, side: str) -> int | None:
        return local_address(self.address(side), self.spec)

    def access(
        self, side: str, shape: Shape, strides: Shape, nibbles: int = 0, eu_aligned: bool = False
    ) -> Access:
        local, item = self.local_address(side), nibbles or self.nibbles
        if local is not None:
            boxes = local_boxes(local, shape, strides, item, self.spec)
            return Access(side, side == "dst", True, boxes, Tensor(local, shape, strides, item, eu_aligned))
        address = self.address(side)
        intervals = runs(list(zip(shape, strides, strict=True)), item)
        boxes = [Box(0, 1, address + start // 2, address + (end + 1) // 2) for start, end in intervals]
        return Access(side, side == "dst", False, boxes, Tensor(address, shape, strides, item, False))

    def tensor(self, side: str, shape: Shape) -> Access:
        if self.fields["stride_enable"]:
            return self.access(side, shape, self.strides(side))
        local = self.local_address(side)
        if local is not None:
            align = eu_items(self.nibbles, self.spec)
            strides = packed_strides(local, shape, align, self.spec)
            return self.access(side, shape, strides, eu_aligned=True)
        _, c, h, w = shape
        return self.access(side, shape, (c * h * w, h * w, w, 1))

    def matrix(self, side: str, rows: int, columns: int) -> Access:
        """Local: rows are n, blocks of wsize columns go over the lanes. Global: rows of a pitch."""
        fields = self.fields
        if self.local_address(side) is None:
            return self.access(side, (1, 1, rows, columns), (0, 0, fields[f"{side}_hstride"] or columns, 1))
        n_str, c_str = fields[f"{side}_nstride"], fields[f"{side}_cstride"]
        _, c, _, w = self.shape(side)
        return self.access(side, (rows, c or -(-columns // max(w, 1)), 1, w), (n_str, c_str, 0, 1))

    def linear(self, side: str, items: int) -> Access:
        """Bytes in address order; in local memory that order goes on in the next lane."""
        local = self.local_address(side)
        if local is None or local % self.spec.lane_bytes + items * self.nibbles // 2 <= self.spec.lane_bytes:
            return self.access(side, (1, 1, 1, items), (0, 0, 0, 1))
        last = (local + items * self.nibbles // 2 - 1) // self.spec.lane_bytes
        box = Box(local // self.spec.lane_bytes, last + 1, 0, self.spec.lane_bytes)
        return Access(side, side == "dst", True, [box])


def _dma_tensor(kind: str, fields: Fields, spec: ChipSpec) -> list[Access] | None:
    dma = _Dma(fields, spec)
    n, c, h, w = source = dma.shape("src")
    given = dma.shape("dst")
    if fields["fill_constant_en"]:
        return [dma.tensor("dst", source if 0 in given else given)]
    targets = {
        "copy": source if fields["nchw_copy"] or 0 in given else given,
        "transpose": (c, n, h, w),
        "collect": (n, w, h, c),
        "distribute": (n, w, h, c),
        "broadcast": (n, fields["dst_csize"], h, w),
    }
    if kind not in targets:
        return None
    return [dma.tensor("src", source), dma.tensor("dst", targets[kind])]


def _dma_matrix(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    """The shape of the matrix is given on the global side, its blocks on the local side."""
    dma = _Dma(fields, spec)
    load = dma.local_address("dst") is not None
    outside, inside = ("src", "dst") if load else ("dst", "src")
    rows, columns = fields[f"{outside}_hsize"], fields[f"{outside}_wsize"]
    local_size = (columns, rows) if kind == "transpose" else (rows, columns)
    both = [dma.matrix(outside, rows, columns), dma.matrix(inside, *local_size)]
    return [access for access in both if access.write or not fields["fill_constant_en"]]


def _dma_general(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    dma = _Dma(fields, spec)
    items = fields["move_length"]
    if kind == "broadcast":
        target = dma.access("dst", (1, fields["dst_csize"], 1, items), (0, items, 0, 1))
    else:
        target = dma.linear("dst", items)
    return [target] if fields["fill_constant_en"] else [dma.linear("src", items), target]


def _dma_gather(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    return _rows_by_index(_Dma(fields, spec), table="src", rows="dst")


def _dma_scatter(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    return _rows_by_index(_Dma(fields, spec), table="dst", rows="src")


def _rows_by_index(dma: _Dma, table: str, rows: str) -> list[Access]:
    """Rows of `table`, any of them, against the rows of the other side in order; 32-bit indices."""
    fields = dma.fields
    width, count = fields["src_wsize"], fields["index_hsize"]
    channels = max(fields["src_csize"], fields["index_csize"])
    table_shape = (1, fields[f"{table}_csize"] or channels, fields[f"{table}_hsize"], width)
    index_strides = (0, fields["index_cstride"], fields["index_hstride"], 1)
    return [
        dma.access(table, table_shape, _row_strides(fields, table)),
        dma.access(rows, (1, channels, count, width), _row_strides(fields, rows)),
        dma.access("index", (1, fields["index_csize"], count, 1), index_strides, NIBBLES[F32], True),
    ]


def _row_strides(fields: Fields, side: str) -> Shape:
    return 0, fields[f"{side}_cstride"], fields[f"{side}_hstride"], 1


def _dma_cw_transpose(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    dma = _Dma(fields, spec)
    n, c, h, w = dma.shape("src")
    return [dma.tensor("src", (n, c, h, w)), dma.tensor("dst", (n, w, h, c))]


RULES: dict[str, Rule] = {
    "dma_tensor": _dma_tensor,
    "dma_matrix": _dma_matrix,
    "dma_general": _dma_general,
    "dma_gather": _dma_gather,
    "dma_scatter": _dma_scatter,
    "dma_cw_transpose": _dma_cw_transpose,
}
