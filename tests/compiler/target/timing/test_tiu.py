"""Cycles of single instructions of the TIU: facts of the vendor's estimate, and what the cautious one adds."""

from __future__ import annotations

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.chips.cv186ah import CV186AH
from compiler.target.isa import PER_CHANNEL, PRECISION, STRIDED, Instruction, isa_for
from compiler.target.timing import cycles
from tests.compiler.target.timing.instructions import (
    BF16,
    COLUMN,
    F32,
    F32_IN_OUT,
    I8,
    I32,
    ar,
    make,
    matmul,
    on_8,
    shaped,
)

# Tokens x hidden of SmolLM2: 8 rounds of lanes.
TOKENS = (1, 512, 576, 1)

IN_PLACE = {"opd0_addr": 0x10000}
UNPACK = {"res0_str": STRIDED, "opd0_str": STRIDED, "res0_h_str": 2, "opd1_const": 1, "opd1_addr": 15}

AR_FACTS = [
    ("a group is 64 bytes of the widest type", ar("cast", TOKENS, 1, opd0_prec=BF16), 288),
    ("a square", ar("mul", TOKENS, 2, opd1_addr=0x20000), 288),
    ("16-bit items go twice as fast", ar("add", (1, 512, 9, 64), 2, BF16), 144),
    ("8-bit items four times", ar("sub", (1, 576, 9, 64), 2, I8), 81),
    (
        "a constant is as wide as its type",
        ar("add", TOKENS, 2, opd0_prec=I8, res0_prec=I8, opd1_const=1),
        288,
    ),
    ("rows shorter than a group", ar("add", (1, 512, 1, 1), 2, opd1_const=1), 8),
    ("a batch starts anew", ar("copy", (3, 256, 1, 1), 1, opd0_const=1), 12),
    ("broadcast operand", ar("mul", TOKENS, 2, opd0_str=STRIDED, opd0_c_str=16), 288),
    ("per channel operand", ar("mul", TOKENS, 2, opd1_str=PER_CHANNEL), 288),
    ("in place", ar("mul", (3, 256, 1, 256), 2, opd1_const=1, **IN_PLACE), 384),
    ("onto the second operand", ar("add", (3, 256, 1, 64), 2, opd1_addr=0x10000), 96),
    ("a constant equal to the address", ar("max", TOKENS, 2, opd1_const=1, opd1_addr=0x10000), 288),
    ("an operand that is not there", ar("cast", TOKENS, 1, res0_addr=0, opd1_addr=0), 288),
    ("same bank, other address", ar("add", TOKENS, 2, opd0_addr=0x10040), 288),
    ("two operands of free strides", ar("add", TOKENS, 2, BF16, opd0_str=3, opd1_str=3), 288),
    ("a constant has no strides", ar("add", TOKENS, 2, opd0_str=3, opd1_str=3, opd1_const=1), 288),
    ("nor has a first one", ar("sub", TOKENS, 2, opd0_str=3, opd1_str=3, opd0_const=1), 288),
    ("and in place", ar("mul", TOKENS, 2, BF16, opd0_str=3, opd1_str=3, **IN_PLACE), 576),
    ("free strides of one operand", ar("cast", TOKENS, 1, opd0_str=3, opd1_str=3), 288),
    ("nibbles from padded rows", ar("and", (1, 576, 288, 1), 2, I8, opd0_c_str=320, **UNPACK), 45),
    ("nibbles from rows back to back", ar("and", (1, 576, 288, 1), 2, I8, opd0_c_str=288, **UNPACK), 90),
    ("wide rows from rows back to back", ar("and", (1, 576, 288, 2), 2, I8, opd0_c_str=288, **UNPACK), 81),
    (
        "every third byte",
        ar("and", (1, 576, 288, 1), 2, I8, opd0_c_str=288, **(UNPACK | {"res0_h_str": 3})),
        45,
    ),
    ("result aligned", ar("and", (1, 576, 288, 1), 2, I8, opd0_c_str=288, **(UNPACK | {"res0_str": 0})), 45),
    ("16-bit integers", ar("min", (1, 64, 1, 64), 2, PRECISION["i16"]), 2),
    ("f16", ar("min", (1, 64, 1, 64), 2, PRECISION["f16"]), 2),
    ("32-bit integers", ar("min", (1, 64, 1, 64), 2, I32), 4),
    ("a copy onto itself", ar("copy", (1, 1, 1, 1), 1, **IN_PLACE), 2),
    ("division", ar("div", (3, 256, 1, 1), 2, opd0_const=1, opd2_n_str=2), 372),
    ("division in place", ar("div", (3, 256, 1, 1), 2, opd0_const=1, opd1_addr=0x10000, opd2_n_str=2), 372),
]

POOL = {"opd1_const": 1, "opd3_const": 1, **F32_IN_OUT}

# One row of 64 in two blocks, times 640 columns in five blocks.
BLOCKED = {**F32_IN_OUT, "res0_c": 5, "res0_w": 128, "opd0_n": 1, "opd0_c": 2, "opd0_w": 32, "opd1_w": 32}


def transpose(kind: str, c: int, w: int) -> Instruction:
    return shaped("tsbc", kind, (1, w, 1, c), res0_prec=BF16, opd0_c=c, opd0_w=w)


OTHER_TIU_FACTS = [
    ("compare", shaped("cmp", "sel_eq", COLUMN, opd0_prec=I32, opd2_prec=I32), 16),
    ("compare rows", shaped("cmp", "sel_lt", (1, 64, 512, 1), opd0_prec=I32, opd2_prec=I32), 64),
    ("reciprocal root", shaped("sfu", "rsqrt", COLUMN, opd2_n_str=3, **F32_IN_OUT), 240),
    ("series of 10", shaped("sfu", "taylor_4x", (3, 256, 1, 1), opd1_n=10, **F32_IN_OUT), 120),
    ("mean of a row", shaped("pord", "avgpooling", COLUMN, opd1_h=576, opd1_w=1, **POOL), 4608),
    ("maximum of a row", shaped("pord", "maxpooling", (3, 256, 1, 16), opd1_h=16, opd1_w=1, **POOL), 192),
    ("pooled rows do not share groups", shaped("pord", "avgpooling", (1, 64, 3, 2), opd1_h=1, opd1_w=2, **POOL), 6),
    ("exponents, which were never seen", shaped("sfu", "normalize", COLUMN, **F32_IN_OUT), 8),
    ("pooled rows as wide as groups", shaped("pord", "avgpooling", (1, 64, 1, 17), opd1_h=1, opd1_w=1, **POOL), 2),
    ("product with rows", matmul("nt", 576, 576, 512), 20736),
    ("product with columns", matmul("nn", 256, 256, 64), 512),
    ("one column costs as four", matmul("nn", 64, 32, 1), 1),
    ("adding to the result is free", matmul("nn", 256, 256, 64, res_add=1), 512),
    ("f32 product", make("mm", "normal", opd2_const=1, **BLOCKED), 512),
    ("f32 product, sum and bias", make("mm", "normal", res_add=1, **BLOCKED), 528),
    ("f32 product, last block short", make("mm", "normal", opd2_const=1, **(BLOCKED | {"opd1_w": 16})), 384),
    ("f32 product of whole blocks", make("mm", "normal", opd2_const=1, **(BLOCKED | {"opd1_w": 0})), 512),
    ("f32 product, transposed", make("mm", "normal", left_tran=1, **BLOCKED), 64 * 8 * 2),
    ("f32 product, wide blocks", make("mm", "normal", opd2_const=1, **(BLOCKED | {"res0_w": 272})), 17 * 64),
    ("product of columns", matmul("tt", 640, 33, 5), 10 * 2 * 2),
    ("one lane to all", shaped("tsbc", "l_bc", (1, 64, 576, 1), res0_prec=BF16, opd0_addr=64), 18),
    ("one lane to all, in place", shaped("tsbc", "l_bc", (1, 64, 576, 1), res0_prec=BF16), 36),
    ("lanes do not count", shaped("tsbc", "l_bc", (1, 640, 576, 1), res0_prec=BF16, opd0_addr=64), 18),
    ("transpose by channels", transpose("wc_ts", 576, 512), 18),
    ("transpose by columns", transpose("cw_ts", 192, 512), 16),
    ("static memory to all lanes", shaped("tsbc", "s_bc", (1, 64, 1, 10), res0_prec=F32), 1),
    ("end", make("sys", "end"), 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [pytest.param(i, n, id=text) for text, i, n in AR_FACTS + OTHER_TIU_FACTS],
)
def test_cycles_of_the_vendors_estimate(instruction, expected):
    assert cycles(instruction, BM1684X) == expected


CAUTIOUS_FACTS = [
    ("arithmetic begins", ar("add", COLUMN, 2), 8 + 11),
    ("a product with columns begins", matmul("nn", 64, 32, 4), 1 + 81),
    ("a product with rows begins sooner", matmul("nt", 64, 32, 4), 1 + 56),
    ("a pool begins", shaped("pord", "maxpooling", COLUMN, opd1_h=2, opd1_w=1, **POOL), 16 + 10),
    ("a series begins at once", shaped("sfu", "taylor", COLUMN, opd1_n=10, **F32_IN_OUT), 80),
    ("a root does not", shaped("sfu", "rsqrt", COLUMN, opd2_n_str=3, **F32_IN_OUT), 240 + 14),
    ("a transpose moves every item", transpose("wc_ts", 576, 512), 576 * 512 * 2 // 64 + 30),
    ("the end is free", make("sys", "end"), 0),
]

# Cycles before the work of one item; the families whose work was never seen count one or two.
STARTS = [
    ("ar", "add", 11), ("cmp", "sel_gt", 9), ("pord", "avgpooling", 10), ("sfu", "normalize", 14),
    ("sfu", "taylor", 0), ("mm2", "nn", 81), ("mm2", "nt", 56), ("mm2", "tt", 37), ("mm", "normal", 32),
    ("lin", "mac", 12), ("rqdq", "dq0", 11), ("sg", "pl_gather_d1coor", 11), ("sgl", "pe_s_gather_line", 24),
    ("tsbc", "cw_ts", 30), ("tsbc", "wc_ts", 30), ("tsbc", "l_copy", 27), ("tsbc", "l_bc", 27),
    ("tsbc", "s_bc", 3), ("tsbc", "s_distribute", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "start"), STARTS, ids=lambda value: str(value))
def test_what_it_takes_to_begin(name, kind, start):
    fields = isa_for(BM1684X).layout(name).fields
    one = {
        field: 1
        for field in fields
        if field[4:] in ("_n", "_c", "_h", "_w", "_addr") and field != "res0_addr"
    }
    instruction = make(name, kind, **one)
    assert cycles(instruction, BM1684X, cautious=True) - cycles(instruction, BM1684X) == start


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in CAUTIOUS_FACTS]
)
def test_cycles_of_the_cautious_estimate(instruction, expected):
    assert cycles(instruction, BM1684X, cautious=True) == expected


def test_a_result_in_the_bank_of_an_operand_costs_double_only_where_banks_count():
    near = ar("add", TOKENS, 2, opd0_addr=0x10040)
    other_lane = ar("add", TOKENS, 2, opd0_addr=0x10040 + 3 * BM1684X.lane_bytes)
    assert cycles(near, BM1684X, cautious=True) == 288 + 11
    assert cycles(near, BM1684X, cautious=True, banks=True) == 2 * 288 + 11
    assert cycles(other_lane, BM1684X, cautious=True, banks=True) == 2 * 288 + 11
    assert cycles(ar("add", TOKENS, 2), BM1684X, cautious=True, banks=True) == 288 + 11


NEVER_SEEN = [
    ("a linear function counts two operations", shaped("lin", "mac", COLUMN, res0_prec=F32), 16),
    ("a gather counts items", shaped("sg", "pl_gather_d1coor", (1, 64, 1, 100)), 100),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in NEVER_SEEN]
)
def test_what_was_never_seen_is_charged_carefully(instruction, expected):
    assert cycles(instruction, BM1684X) == int(expected)


def test_fewer_iterations_than_were_seen_are_no_cheaper():
    three, one, four = (cycles(ar("div", TOKENS, 2, opd2_n_str=n), BM1684X) for n in (2, 0, 3))
    assert one == three < four


def rows_on_8(kind: str, channels: int, width: int, item: int, **fields: int) -> Instruction:
    """Arithmetic on one or two operands, not in place."""
    shape = {"res0_n": 1, "res0_c": channels, "res0_h": 1, "res0_w": width}
    types = {"res0_prec": item, "opd0_prec": item, "opd1_prec": item, "opd0_addr": 64, "opd1_addr": 128}
    return on_8("ar", kind, **(shape | types | {"tsk_opd_num": 2} | fields))


SQUARE = {"res0_c": 33, "res0_w": 24, "opd1_c": 17, "opd1_w": 24}
ONE_IN_PLACE = {"tsk_opd_num": 1, "opd0_addr": 0}

BM1688_FACTS = [
    ("a group is 16 bytes of 32 lanes", rows_on_8("add", 64, 64, BF16), 16),
    ("4-bit items", rows_on_8("cast", 32, 64, 6), 2),
    ("a product", on_8("mm2", "nn", opd0_prec=BF16, res0_prec=F32, **SQUARE), 2 * 2 * 12),
    ("static memory to all lanes", on_8("tsbc", "s_bc", res0_c=32, res0_w=10), 3),
    ("the copy before a product", rows_on_8("copy", 1, 1, BF16, **ONE_IN_PLACE), 0),
    ("a copy elsewhere", rows_on_8("copy", 1, 1, BF16, tsk_opd_num=1), 1),
    ("another instruction", rows_on_8("not", 1, 1, BF16, **ONE_IN_PLACE), 2),
    ("another copy", rows_on_8("copy", 1, 2, BF16, **ONE_IN_PLACE), 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in BM1688_FACTS]
)
def test_cycles_on_bm1688(instruction, expected):
    assert cycles(instruction, BM1688) == cycles(instruction, CV186AH) == expected
