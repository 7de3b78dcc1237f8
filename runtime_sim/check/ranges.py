"""Which bytes an instruction reads and writes, from its fields alone.

A range is never too small; it may be too large where exactness costs more than it gives. Local memory is
lanes x bytes, so a range is a list of boxes: every lane of an interval, the same bytes in each. Global memory
(DDR and on-chip SRAM, seen by the DMA only) is one lane of absolute addresses. Items are counted in nibbles
inside this file, because BM1688 has 4-bit ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from compiler.sizes import round_up
from compiler.target.isa import ALIGNED, COMPACT, PER_CHANNEL, STRIDED, Instruction
from compiler.target.spec import ChipSpec

NIBBLES = {0: 2, 1: 4, 2: 8, 3: 4, 4: 8, 5: 4, 6: 1, 7: 8}  # of an item, by code of its precision; 7 is none
F32 = 2
MAX_BOXES = 512  # of one operand; beyond it the gaps between the closest ones are taken too

Shape = tuple[int, int, int, int]  # n, c, h, w
Fields = dict[str, int]


class Box(NamedTuple):
    """Lanes [lane, lane_end), in each of them bytes [start, end)."""

    lane: int
    lane_end: int
    start: int
    end: int


class Tensor(NamedTuple):
    """How an operand lies; strides in items. In local memory the c stride is that of a lane's channels."""

    address: int  # in global memory, or lane * lane_bytes + offset
    shape: Shape
    strides: Shape
    nibbles: int  # of an item
    eu_aligned: bool  # whether its layout is one that begins on a multiple of the EU's bytes


@dataclass(frozen=True)
class Access:
    """What one operand touches."""

    operand: str  # field prefix: res0, opd0, src, dst, ...
    write: bool
    is_local: bool
    boxes: list[Box]
    tensor: Tensor | None = None  # None when its layout is not known


def accesses(instruction: Instruction, spec: ChipSpec) -> list[Access]:
    """Everything the instruction reads and writes; all of local memory when it is of an unknown kind."""
    rule = RULES.get(instruction.name)
    found = rule(instruction.kind, instruction.fields, spec) if rule else None
    return list(found) if found is not None else _everything(spec)


def _everything(spec: ChipSpec) -> list[Access]:
    boxes = [Box(0, spec.lanes, 0, spec.lane_bytes)]
    return [Access("all", False, True, boxes), Access("all", True, True, boxes)]


# ---- tensors in local memory ----


def local_boxes(address: int, shape: Shape, strides: Shape, nibbles: int, spec: ChipSpec) -> list[Box]:
    """A tensor whose channels go round the lanes from the address's lane on; strides in items.

    The c stride is that between two channels on one lane.
    """
    n, c, h, w = shape
    n_str, c_str, h_str, w_str = strides
    lane, offset = divmod(address, spec.lane_bytes)
    boxes = []
    for first_lane, end_lane, slot, slots in lane_groups(lane, c, spec.lanes):
        base = 2 * offset + slot * c_str * nibbles
        loops = [(n, n_str), (slots, c_str), (h, h_str), (w, w_str)]
        for start, end in _runs(loops, nibbles):
            boxes.append(Box(first_lane, end_lane, (base + start) // 2, (base + end + 1) // 2))
    return boxes


def lane_groups(lane: int, channels: int, lanes: int) -> Iterator[tuple[int, int, int, int]]:
    """(first lane, end lane, first slot, slots) of the groups of channels that lie on the same lanes."""
    slot = 0
    if lane:
        yield lane, min(lanes, lane + channels), 0, 1
        channels -= lanes - lane
        slot = 1
    full, rest = divmod(max(channels, 0), lanes)
    if full:
        yield 0, lanes, slot, full
    if rest:
        yield 0, rest, slot + full, 1


def _runs(loops: list[tuple[int, int]], item: int) -> list[tuple[int, int]]:
    """Intervals covered by nested loops of (count, stride in items) over an item; close ones are joined."""
    run = item
    outer: list[tuple[int, int]] = []
    for count, stride in sorted(loops, key=lambda loop: loop[1]):
        if count <= 0:
            return []
        if count == 1 or stride == 0:
            continue
        if stride * item <= run or prod(inner for inner, _ in outer) * count > MAX_BOXES:
            run += (count - 1) * stride * item
            run += sum((inner_count - 1) * inner_stride for inner_count, inner_stride in outer)
            outer = []
        else:
            outer.append((count, stride * item))
    starts = [0]
    for count, step in outer:
        starts = [start + i * step for i in range(count) for start in starts]
    return [(start, start + run) for start in starts]


def _packed_strides(address: int, shape: Shape, align: int, spec: ChipSpec) -> Shape:
    """Rows of h*w items back to back, channels of a lane at multiples of `align` items."""
    _, c, h, w = shape
    c_str = round_up(h * w, align)
    slots = -(-(address // spec.lane_bytes + c) // spec.lanes)
    return slots * c_str, c_str, w, 1


def _eu_items(nibbles: int, spec: ChipSpec) -> int:
    return 2 * spec.eu_bytes // nibbles


@dataclass(frozen=True)
class _Tiu:
    """Builds the accesses of one TIU instruction."""

    fields: Fields
    spec: ChipSpec

    @property
    def result_shape(self) -> Shape:
        return self.shape("res0")

    def shape(self, operand: str) -> Shape:
        fields = self.fields
        return tuple(fields.get(f"{operand}_{axis}", 1) for axis in "nchw")  # type: ignore[return-value]

    def nibbles(self, operand: str) -> int:
        return NIBBLES[self.fields[f"{operand}_prec"]]

    def address(self, operand: str) -> int:
        return self.fields[f"{operand}_addr"]

    def is_const(self, operand: str) -> bool:
        return bool(self.fields.get(f"{operand}_const", 0))

    def access(
        self, operand: str, shape: Shape, strides: Shape, nibbles: int, write: bool, eu_aligned: bool = False
    ) -> Access:
        tensor = Tensor(self.address(operand), shape, strides, nibbles, eu_aligned)
        boxes = local_boxes(tensor.address, shape, strides, nibbles, self.spec)
        return Access(operand, write, True, boxes, tensor)

    def aligned(self, operand: str, shape: Shape, nibbles: int, write: bool = False) -> Access:
        strides = _packed_strides(self.address(operand), shape, _eu_items(nibbles, self.spec), self.spec)
        return self.access(operand, shape, strides, nibbles, write, eu_aligned=True)

    def compact(self, operand: str, shape: Shape, nibbles: int, write: bool = False) -> Access:
        strides = _packed_strides(self.address(operand), shape, 1, self.spec)
        return self.access(operand, shape, strides, nibbles, write)

    def line_aligned(self, operand: str, shape: Shape, nibbles: int, write: bool = False) -> Access:
        n, c, h, w = shape
        return self.aligned(operand, (n, c, h, round_up(w, _eu_items(nibbles, self.spec))), nibbles, write)

    def by_code(self, operand: str, nibbles: int, write: bool = False) -> Access:
        """An operand of the result's shape whose `*_str` code names its layout."""
        code, shape = self.fields.get(f"{operand}_str", ALIGNED), self.result_shape
        if code == STRIDED:
            strides = tuple(self.fields.get(f"{operand}_{axis}_str", 0) for axis in "nchw")
            return self.access(operand, shape, strides, nibbles, write)  # type: ignore[arg-type]
        if code == PER_CHANNEL:
            return self.compact(operand, (1, shape[1], 1, 1), nibbles, write)
        if code == COMPACT:
            return self.compact(operand, shape, nibbles, write)
        return self.aligned(operand, shape, nibbles, write)


# ---- TIU instructions ----

Rule = Callable[[str, Fields, ChipSpec], Iterator[Access] | list[Access] | None]


def _ar(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    count = fields.get("tsk_opd_num", 3)
    for operand in ("opd0", "opd1")[:count]:
        if not tiu.is_const(operand):
            yield tiu.by_code(operand, tiu.nibbles(operand))
    if count == 3 and not tiu.is_const("opd2"):
        covering = tiu.aligned("opd2", tiu.result_shape, tiu.nibbles("opd2"))  # its narrower layouts too
        yield replace(covering, tensor=None)
    yield tiu.by_code("res0", tiu.nibbles("res0"), write=True)


def _cmp(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    shape, compared, chosen = tiu.result_shape, tiu.nibbles("opd0"), tiu.nibbles("opd2")
    for operand in ("opd0", "opd1"):
        if not tiu.is_const(operand):
            yield tiu.by_code(operand, compared)
    for operand in ("opd2", "opd3"):
        if not tiu.is_const(operand):
            yield tiu.aligned(operand, shape, chosen)
    both = kind in ("gt_and_sel", "lt_and_sel")
    yield tiu.aligned("res0", shape, compared if both else chosen, write=True)
    if both:
        yield tiu.aligned("res1", shape, chosen, write=True)


def _mm2(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    rows, columns = fields["res0_c"], fields["res0_w"]
    inner = fields["opd1_c"] if kind == "nn" else fields["opd1_w"]
    left = (inner, columns) if kind == "tt" else (rows, inner)
    item, result = tiu.nibbles("opd0"), tiu.nibbles("res0")
    if not tiu.is_const("opd0"):
        yield tiu.aligned("opd0", (1, left[0], 1, left[1]), item)
    if not tiu.is_const("opd1"):
        right_item = NIBBLES[fields.get("opd1_prec", fields["opd0_prec"])]
        yield tiu.aligned("opd1", (1, fields["opd1_c"], 1, fields["opd1_w"]), right_item)
    shape = (1, rows, 1, columns)
    if fields["res_add"]:
        yield tiu.aligned("res0", shape, NIBBLES[F32])
    yield tiu.aligned("res0", shape, result, write=True)


def _mm(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    """Matrices in column blocks: rows are n, blocks of w columns are channels."""
    tiu = _Tiu(fields, spec)
    item, result = tiu.nibbles("opd0"), tiu.nibbles("res0")
    left = (fields["opd0_n"], fields["opd0_c"], 1, fields["opd0_w"])
    last_block = fields["opd1_w"] or fields["opd0_w"]
    inner = (fields["opd0_c"] - 1) * fields["opd0_w"] + last_block
    rows, inner = (inner, left[0]) if fields["left_tran"] else (left[0], inner)
    if not tiu.is_const("opd0"):
        yield tiu.aligned("opd0", left, item)
    yield tiu.aligned("opd1", (inner, fields["res0_c"], 1, fields["res0_w"]), item)
    if not tiu.is_const("opd2"):
        yield tiu.aligned("opd2", (1, fields["res0_c"], 1, fields["res0_w"]), NIBBLES[F32])
    shape = (rows, fields["res0_c"], 1, fields["res0_w"])
    if fields["res_add"]:
        yield tiu.aligned("res0", shape, result)
    yield tiu.aligned("res0", shape, result, write=True)


def _sfu(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    shape, item = tiu.result_shape, tiu.nibbles("opd0")
    yield tiu.aligned("opd0", shape, item)
    if kind.startswith("taylor"):
        row = (1, shape[1], 1, fields["opd1_n"])
        yield tiu.access("opd1", row, (0, 0, 0, 1), item, write=False, eu_aligned=True)
    yield tiu.aligned("res0", shape, tiu.nibbles("res0"), write=True)


def _pord(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access] | None:
    if kind.startswith("roi"):
        return None
    return _pool(kind, _Tiu(fields, spec))


def _pool(kind: str, tiu: _Tiu) -> Iterator[Access]:
    fields = tiu.fields
    n, c, _, _ = tiu.result_shape
    item = tiu.nibbles("opd0")
    yield tiu.aligned("opd0", (n, c, fields["opd0_h"], fields["opd0_w"]), item)
    if not tiu.is_const("opd1") and not kind.startswith("max"):
        yield tiu.compact("opd1", (1, c, fields["opd1_h"], fields["opd1_w"]), item)
    if kind.startswith("depthwise") and not tiu.is_const("opd2"):
        yield tiu.compact("opd2", (1, c, 1, 1), NIBBLES[F32])
    if not tiu.is_const("opd3"):
        yield tiu.compact("opd3", (1, c, 1, 2), item)
    yield tiu.aligned("res0", tiu.result_shape, tiu.nibbles("res0"), write=True)


def _tsbc(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    shape, item = tiu.result_shape, tiu.nibbles("res0")
    n, _, h, w = shape
    if kind in ("cw_ts", "wc_ts"):
        yield tiu.aligned("opd0", (n, fields["opd0_c"], h, fields["opd0_w"]), item)
    elif kind == "l_copy":
        yield tiu.aligned("opd0", shape, item)
    elif kind == "l_bc":
        yield tiu.aligned("opd0", (n, 1, h, w), item)
    if kind == "cw_ts":
        yield tiu.line_aligned("res0", shape, item, write=True)
    elif kind == "s_distribute":
        yield tiu.compact("res0", shape, item, write=True)
    else:
        yield tiu.aligned("res0", shape, item, write=True)


def _rqdq(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    shape = tiu.result_shape
    yield tiu.aligned("opd0", shape, tiu.nibbles("opd0"))
    if not tiu.is_const("opd1"):
        yield tiu.aligned("opd1", (1, shape[1], 1, 3), NIBBLES[F32])  # scale, offset and shift at most
    yield tiu.aligned("res0", shape, tiu.nibbles("res0"), write=True)


def _lin(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access]:
    tiu = _Tiu(fields, spec)
    shape, item = tiu.result_shape, tiu.nibbles("res0")
    yield tiu.aligned("opd0", shape, item)
    for operand in ("opd1", "opd2"):
        if not tiu.is_const(operand):
            yield tiu.compact(operand, (1, shape[1], 1, 1), item)
    yield tiu.aligned("res0", shape, item, write=True)


def _none(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    return []


# ---- DMA instructions ----


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
        runs = _runs(list(zip(shape, strides, strict=True)), item)
        boxes = [Box(0, 1, address + start // 2, address + (end + 1) // 2) for start, end in runs]
        return Access(side, side == "dst", False, boxes, Tensor(address, shape, strides, item, False))

    def tensor(self, side: str, shape: Shape) -> Access:
        if self.fields["stride_enable"]:
            return self.access(side, shape, self.strides(side))
        local = self.local_address(side)
        if local is not None:
            align = _eu_items(self.nibbles, self.spec)
            strides = _packed_strides(local, shape, align, self.spec)
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
    "ar": _ar,
    "cmp": _cmp,
    "mm2": _mm2,
    "mm": _mm,
    "sfu": _sfu,
    "pord": _pord,
    "tsbc": _tsbc,
    "rqdq": _rqdq,
    "lin": _lin,
    "sys": _none,
    "dma_tensor": _dma_tensor,
    "dma_matrix": _dma_matrix,
    "dma_general": _dma_general,
    "dma_gather": _dma_gather,
    "dma_scatter": _dma_scatter,
    "dma_cw_transpose": _dma_cw_transpose,
    "dma_sys": _none,
}
