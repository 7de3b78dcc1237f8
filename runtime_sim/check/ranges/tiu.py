"""What TIU instructions touch in local memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from compiler.sizes import round_up
from compiler.target.isa import ALIGNED, COMPACT, PER_CHANNEL, STRIDED
from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges.boxes import (
    F32,
    NIBBLES,
    Access,
    Fields,
    Rule,
    Shape,
    Tensor,
    eu_items,
    local_boxes,
    packed_strides,
)


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
        strides = packed_strides(self.address(operand), shape, eu_items(nibbles, self.spec), self.spec)
        return self.access(operand, shape, strides, nibbles, write, eu_aligned=True)

    def compact(self, operand: str, shape: Shape, nibbles: int, write: bool = False) -> Access:
        strides = packed_strides(self.address(operand), shape, 1, self.spec)
        return self.access(operand, shape, strides, nibbles, write)

    def line_aligned(self, operand: str, shape: Shape, nibbles: int, write: bool = False) -> Access:
        n, c, h, w = shape
        return self.aligned(operand, (n, c, h, round_up(w, eu_items(nibbles, self.spec))), nibbles, write)

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


def _sg(kind: str, fields: Fields, spec: ChipSpec) -> Iterator[Access] | None:
    if kind not in ("pl_gather_d1coor", "pe_s_gather_d1coor"):
        return None
    return _gather(kind == "pl_gather_d1coor", _Tiu(fields, spec))


def _gather(shared: bool, tiu: _Tiu) -> Iterator[Access]:
    """Rows of items by an index that all lanes share, or of one row in each lane by its own."""
    n, c, _, w = tiu.result_shape
    item, index = tiu.nibbles("res0"), tiu.nibbles("opd1")
    yield tiu.aligned("opd0", (n if shared else 1, c, 1, tiu.fields["opd0_w"]), item)
    yield tiu.compact("opd1", (1, w, 1, 1), index) if shared else tiu.aligned("opd1", (n, c, 1, w), index)
    yield tiu.aligned("res0", (n, c, 1, w), item, write=True)


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
    "sg": _sg,
}
