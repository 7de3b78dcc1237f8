"""Cycles of TIU instructions, from their fields.

Most instructions work on the groups of their result: one group is what all lanes do in one cycle, `eu_bytes`
of each lane's widest operand. A new channel or batch starts a new group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compiler.target.isa import STRIDED
from compiler.target.spec import ChipSpec

Fields = dict[str, int]

NIBBLES = (2, 4, 8, 4, 8, 4, 1)  # of an item, by code of its precision
F32_BYTES = 4  # of an item of MM, which was seen with f32 only
DIVIDE_ITERATIONS = 3  # that the cost of a division was seen with


@dataclass(frozen=True)
class TiuModel:
    """The cost of one chip's TIU instructions.

    `cautious` adds the time to begin and the work of transposes; `banks` charges a result that starts in the
    bank of an operand like one that lies on top of it.
    """

    spec: ChipSpec
    cautious: bool = False
    banks: bool = False

    def cycles(self, name: str, kind: str, fields: Fields) -> int:
        rule = RULES.get(name)
        work = rule(self, kind, fields) if rule else self._unknown(fields)
        if not self.cautious:
            return work
        start = self.spec.costs.tiu_start
        return work + start.get(name, 0) + start.get(f"{name}.{kind}", 0)

    def _groups(self, fields: Fields, *precisions: str) -> int:
        """Groups of the result, for the widest of the given precisions."""
        widest = max(NIBBLES[fields.get(precision, 0)] for precision in precisions)
        groups = -(-fields["res0_h"] * fields["res0_w"] * widest // (2 * self.spec.eu_bytes))
        return fields["res0_n"] * self._rows(fields["res0_c"]) * groups

    def _unknown(self, fields: Fields) -> int:
        """As if every item of the result were computed by itself in its lane."""
        n, c, h, w = (fields.get(f"res0_{axis}", 1) for axis in "nchw")
        return n * self._rows(c) * h * w

    def _rows(self, channels: int) -> int:
        """How often channels go round the lanes."""
        return -(-channels // self.spec.lanes)

    def _eu_items(self, fields: Fields, precision: str) -> int:
        return 2 * self.spec.eu_bytes // NIBBLES[fields[precision]]

    def _arithmetic(self, kind: str, fields: Fields) -> int:
        groups = self._groups(fields, "res0_prec", "opd0_prec", "opd1_prec")
        if kind == "div":
            iterations = max(fields["opd2_n_str"] + 1, DIVIDE_ITERATIONS)
            return 31 * groups * iterations // DIVIDE_ITERATIONS
        if kind == "copy" and self.spec.costs.free_self_copy and _is_one_item_in_place(fields):
            return 0
        return groups * self._collision(fields) * _encoding_penalty(fields)

    def _collision(self, fields: Fields) -> int:
        """2 where the result overwrites an operand (or lies in its bank), else 1."""
        result = self._place(fields["res0_addr"])
        for operand in ("opd0", "opd1")[: fields["tsk_opd_num"]]:
            if not fields[f"{operand}_const"] and self._place(fields[f"{operand}_addr"]) == result:
                return 2
        return 1

    def _place(self, address: int) -> int:
        """What must differ for two operands not to collide: the address, or the bank in any lane."""
        return address % self.spec.lane_bytes // self.spec.bank_bytes if self.banks else address

    def _compare(self, kind: str, fields: Fields) -> int:
        return 2 * self._groups(fields, "opd0_prec", "opd2_prec")

    def _function(self, kind: str, fields: Fields) -> int:
        groups = self._groups(fields, "res0_prec", "opd0_prec")
        if kind.startswith("taylor"):
            return groups * fields["opd1_n"]
        return 30 * groups if kind == "rsqrt" else groups

    def _pool(self, kind: str, fields: Fields) -> int:
        """The kernel's positions one by one; each row of the result is a group of its own."""
        kernel = fields["opd1_h"] * fields["opd1_w"]
        widest = max(NIBBLES[fields["res0_prec"]], NIBBLES[fields["opd0_prec"]])
        row_groups = -(-fields["res0_w"] * widest // (2 * self.spec.eu_bytes))
        return kernel * fields["res0_n"] * self._rows(fields["res0_c"]) * fields["res0_h"] * row_groups

    def _matmul(self, kind: str, fields: Fields) -> int:
        result = 1
        for size, block in zip(matmul_sizes(kind, fields), self.spec.costs.matmul_block, strict=True):
            result *= -(-size // block)
        return result

    def _blocked_matmul(self, kind: str, fields: Fields) -> int:
        rows, inner, _ = blocked_matmul_sizes(fields)
        blocks = self._rows(fields["res0_c"]) * -(-fields["res0_w"] // self.spec.eu_items(F32_BYTES))
        return rows * blocks * (inner + fields["res_add"] + (not fields["opd2_const"]))

    def _transpose_or_broadcast(self, kind: str, fields: Fields) -> int:
        if kind.startswith("s_"):
            return self.spec.costs.static_broadcast
        items = self._eu_items(fields, "res0_prec")
        if kind in ("cw_ts", "wc_ts"):
            row = -(-fields["opd0_w" if kind == "cw_ts" else "opd0_c"] // items)
            return max(row, _result_items(fields) // items) if self.cautious else row
        in_place = fields["res0_addr"] == fields["opd0_addr"]
        return fields["res0_n"] * -(-fields["res0_h"] * fields["res0_w"] // items) * (1 + in_place)

    def _linear(self, kind: str, fields: Fields) -> int:
        """Never seen; two operations on each item."""
        return 2 * self._groups(fields, "res0_prec")

    def _outer(self, kind: str, fields: Fields) -> int:
        """Never seen; as if the product's rows were written one after the other."""
        width = -(-fields["res0_w"] // self._eu_items(fields, "res0_prec"))
        return self._rows(fields["res0_c"]) * width * max(fields["opd0_w"], 1)

    def _free(self, kind: str, fields: Fields) -> int:
        return 0


def _encoding_penalty(fields: Fields) -> int:
    """2 where free strides slow an instruction down, else 1."""
    if fields["tsk_opd_num"] < 2:
        return 1
    both_free = fields["opd0_str"] == fields["opd1_str"] == STRIDED
    if both_free and not fields["opd0_const"] and not fields["opd1_const"]:
        return 2
    every_second = fields["res0_str"] == STRIDED and fields["res0_w"] == 1 and fields["res0_h_str"] == 2
    return 2 if every_second and fields["opd0_c_str"] == fields["res0_h"] else 1


def _is_one_item_in_place(fields: Fields) -> bool:
    return _result_items(fields) == 1 and fields["res0_addr"] == fields["opd0_addr"]


def _result_items(fields: Fields) -> int:
    return fields["res0_n"] * fields["res0_c"] * fields["res0_h"] * fields["res0_w"]


def matmul_sizes(kind: str, fields: Fields) -> tuple[int, int, int]:
    """Rows, inner and columns of an MM2."""
    right_c, right_w = fields["opd1_c"], fields["opd1_w"]
    if kind == "tt":
        return fields["res0_w"], right_w, right_c
    return fields["res0_c"], right_c if kind == "nn" else right_w, fields["res0_w"]


def blocked_matmul_sizes(fields: Fields) -> tuple[int, int, int]:
    """Rows, inner and columns of an MM, whose columns come in blocks; the last one may be short."""
    last = fields["opd1_w"] or fields["opd0_w"]
    wide = (fields["opd0_c"] - 1) * fields["opd0_w"] + last
    rows, inner = (wide, fields["opd0_n"]) if fields["left_tran"] else (fields["opd0_n"], wide)
    return rows, inner, fields["res0_c"] * fields["res0_w"]


Rule = Callable[[TiuModel, str, Fields], int]
RULES: dict[str, Rule] = {
    "ar": TiuModel._arithmetic,
    "cmp": TiuModel._compare,
    "sfu": TiuModel._function,
    "pord": TiuModel._pool,
    "mm2": TiuModel._matmul,
    "mm": TiuModel._blocked_matmul,
    "tsbc": TiuModel._transpose_or_broadcast,
    "lin": TiuModel._linear,
    "vc": TiuModel._outer,
    "sys": TiuModel._free,
    "sys_tr_acc": TiuModel._free,
}
