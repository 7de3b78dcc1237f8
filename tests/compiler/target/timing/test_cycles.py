"""Cycles of single instructions: facts of the vendor's estimate, and what the cautious one adds."""

from __future__ import annotations

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.chips.cv186ah import CV186AH
from compiler.target.isa import PER_CHANNEL, PRECISION, STRIDED, Instruction, isa_for, split_address
from compiler.target.timing import cycles
from tests.compiler.target.timing.instructions import (
    BF16,
    COLUMN,
    F32,
    F32_IN_OUT,
    I8,
    I32,
    ar,
    gather,
    make,
    matmul,
    matrix,
    on_8,
    rows_of,
    shaped,
    tensor,
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


DMA_FACTS = [
    ("load rows", tensor("copy", *rows_of(512, 576)), 10919),
    ("store rows", tensor("copy", *rows_of(512, 576), store=True), 14393),
    ("h joins w where rows touch", tensor("copy", (1, 512, 576, 1), (294912, 576, 1, 1)), 10919),
    ("h joins w", tensor("copy", (1, 64, 2, 64), (0, 32768, 64, 1)), 303),
    ("h of stride w, w of none", tensor("copy", (1, 64, 2, 1), (0, 32768, 1, 5)), 303),
    ("h far apart, w of 1", tensor("copy", (1, 64, 2, 1), (0, 32768, 7, 1)), 606),
    ("one far h", tensor("copy", (1, 64, 1, 128), (0, 32768, 7, 1)), 303),
    ("one w of any stride", tensor("copy", (1, 64, 1, 1), (0, 32768, 7, 9)), 303),
    ("another shape on the other side", tensor("copy", (1, 1, 1, 4096), (32768, 512, 512, 1), nchw_copy=0,
     store=True, dst_nsize=1, dst_csize=8, dst_hsize=1, dst_wsize=512), 399),
    ("its shape left out", tensor("copy", *rows_of(8, 512), nchw_copy=0, store=True), 399),
    ("its shape not used", tensor("copy", *rows_of(8, 512), store=True, dst_nsize=1, dst_csize=1, dst_hsize=1,
     dst_wsize=9), 399),
    ("a row uses one channel", tensor("copy", *rows_of(1, 576)), 85),
    ("short rows, one channel", tensor("copy", *rows_of(64, 27)), 1213),
    ("short rows, two channels", tensor("copy", *rows_of(64, 81), item=I8), 606),
    ("short rows, three channels", tensor("copy", *rows_of(64, 81)), 404),
    ("short rows, four channels", tensor("copy", *rows_of(64, 108)), 303),
    ("a column", tensor("copy", (1, 576, 1, 1), (576, 1, 1, 1)), 10919),
    ("items apart are rows", tensor("copy", (1, 1, 1, 64), (64, 64, 64, 512)), 1213),
    ("rows apart do not join", tensor("copy", (1, 64, 2, 128), (0, 32768, 256, 1)), 606),
    ("the stride of c counts, not its bytes", tensor("copy", (1, 1, 1, 576), (0, 8192, 0, 1)), 21),
    ("batches on one channel", tensor("copy", (8, 1, 1, 128), (8192, 128, 128, 1)), 151),
    ("heads to lanes", tensor("transpose", (256, 3, 1, 64), (576, 64, 64, 1)), 3639),
    ("tokens to lanes", tensor("transpose", (256, 1, 1, 64), (64, 64, 64, 1)), 1213),
    ("load by n", tensor("transpose", (4, 1, 1, 2048), (2048, 64, 64, 1)), 303),
    ("store by n where c was", tensor("transpose", (1, 4, 1, 2048), (2048, 64, 64, 1), store=True), 399),
    ("no strides: DDR is compact", tensor("copy", (1, 512, 1, 576), (0, 0, 0, 0), stride_enable=0), 10919),
    ("one word to all lanes", tensor("broadcast", (1, 1, 1, 1), (1, 1, 1, 1), item=I32, dst_csize=64), 4),
    ("rows of words to all lanes", tensor("broadcast", (1, 1, 512, 1), (0, 0, 1, 1), item=I32, dst_csize=64), 2259),
    ("a matrix over the lanes", matrix(1, 576, 9), 282),
    ("a matrix of wide blocks", matrix(24, 16384, 256), 13559),
    ("store a matrix", matrix(24, 16384, 256, store=True), 17873),
    ("gather", gather(512, 64), 1024),
    ("gather one row", gather(1, 64), 2),
    ("end", make("dma_sys", "end"), 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [pytest.param(i, n, id=text) for text, i, n in AR_FACTS + OTHER_TIU_FACTS + DMA_FACTS],
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
    ("a load waits for DDR", tensor("copy", *rows_of(512, 576)), 10919 + 387),
    ("a store less so", tensor("copy", *rows_of(512, 576), store=True), 14393 + 227),
    ("rows of a gather are read and written", gather(512, 576), 25312 + 614),
    ("a gather reads and writes whole bursts", gather(1, 64), int(256 / 64 * (1.18482 + 1.561803)) + 614),
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
    ("fill local memory", tensor("copy", *rows_of(64, 2048), fill_constant_en=1), 6397),
    ("copy within DDR", tensor("copy", *rows_of(512, 576), **split_address("dst", 3 << 32)), 25312),
    ("short rows within DDR", tensor("copy", *rows_of(512, 1), **split_address("dst", 3 << 32)), 43),
    ("gather to the lanes", gather(512, 64, **split_address("dst", BM1684X.dma_local_base)), 2426),
    ("rows to a general command", make("dma_general", "copy", move_length=32768, src_data_format=BF16,
     **split_address("src", BM1684X.ddr_base), **split_address("dst", BM1684X.dma_local_base)), 1213),
    ("a short one", make("dma_general", "copy", move_length=1152, **split_address("src", BM1684X.ddr_base),
     **split_address("dst", BM1684X.dma_local_base)), 85),
    ("to all lanes", make("dma_general", "broadcast", move_length=580, **split_address("src", BM1684X.ddr_base),
     **split_address("dst", BM1684X.dma_local_base)), 10),
    ("channels and columns exchanged", tensor("collect", (1, 64, 1, 8), (512, 64, 64, 1), store=True), 64 * 8 * 4 * 1.561803 * 4),
    ("the same as a command", make("dma_cw_transpose", "copy", src_nsize=1, src_csize=64, src_hsize=1, src_wsize=8,
     **split_address("src", BM1684X.ddr_base), **split_address("dst", BM1684X.dma_local_base)), 64 * 8 * 4 * 1.18482),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in NEVER_SEEN]
)
def test_what_was_never_seen_is_charged_carefully(instruction, expected):
    assert cycles(instruction, BM1684X) == int(expected)


def test_short_rows_within_ddr_are_whole_bursts_in_the_cautious_estimate():
    short = tensor("copy", *rows_of(512, 1), **split_address("dst", 3 << 32))
    assert cycles(short, BM1684X, cautious=True) == int(512 * 256 / 64 * (1.18482 + 1.561803)) + 614


def test_fewer_iterations_than_were_seen_are_no_cheaper():
    three, one, four = (cycles(ar("div", TOKENS, 2, opd2_n_str=n), BM1684X) for n in (2, 0, 3))
    assert one == three < four


# BM1688


def rows_on_8(kind: str, channels: int, width: int, item: int, **fields: int) -> Instruction:
    """Arithmetic on one or two operands, not in place."""
    shape = {"res0_n": 1, "res0_c": channels, "res0_h": 1, "res0_w": width}
    types = {"res0_prec": item, "opd0_prec": item, "opd1_prec": item, "opd0_addr": 64, "opd1_addr": 128}
    return on_8("ar", kind, **(shape | types | {"tsk_opd_num": 2} | fields))


SQUARE = {"res0_c": 33, "res0_w": 24, "opd1_c": 17, "opd1_w": 24}
ONE_IN_PLACE = {"tsk_opd_num": 1, "opd0_addr": 0}
WITHIN_DDR = split_address("dst", BM1688.ddr_base + 65536)

BM1688_FACTS = [
    ("a group is 16 bytes of 32 lanes", rows_on_8("add", 64, 64, BF16), 16),
    ("4-bit items", rows_on_8("cast", 32, 64, 6), 2),
    ("a product", on_8("mm2", "nn", opd0_prec=BF16, res0_prec=F32, **SQUARE), 2 * 2 * 12),
    ("static memory to all lanes", on_8("tsbc", "s_bc", res0_c=32, res0_w=10), 3),
    ("the copy before a product", rows_on_8("copy", 1, 1, BF16, **ONE_IN_PLACE), 0),
    ("a copy elsewhere", rows_on_8("copy", 1, 1, BF16, tsk_opd_num=1), 1),
    ("another instruction", rows_on_8("not", 1, 1, BF16, **ONE_IN_PLACE), 2),
    ("another copy", rows_on_8("copy", 1, 2, BF16, **ONE_IN_PLACE), 2),
    ("load rows", tensor("copy", *rows_of(64, 64), spec=BM1688), 290 + 307),
    ("store rows", tensor("copy", *rows_of(64, 64), store=True, spec=BM1688), 170 + 307),
    ("short rows on two channels", tensor("copy", *rows_of(16, 16), spec=BM1688), 290 + 96),
    ("batches on two channels", tensor("copy", (8, 1, 1, 64), (256, 64, 64, 1), spec=BM1688), 290 + 76),
    ("a copy within DDR", tensor("copy", *rows_of(64, 8), spec=BM1688, **WITHIN_DDR), 290 + 76),
    ("a matrix", matrix(1, 1024, 32, spec=BM1688), 290 + 96),
    ("a gather", gather(64, 64, BM1688), 290 + 614),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in BM1688_FACTS]
)
def test_cycles_on_bm1688(instruction, expected):
    assert cycles(instruction, BM1688) == cycles(instruction, CV186AH) == expected


BM1688_CAUTIOUS_FACTS = [
    ("a load has its latency already", tensor("copy", *rows_of(64, 64), spec=BM1688), 290 + 307),
    ("so has a store", tensor("copy", *rows_of(64, 64), store=True, spec=BM1688), 170 + 307),
    ("a gather reads, then writes", gather(64, 64, BM1688), 460 + 614),
]


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in BM1688_CAUTIOUS_FACTS]
)
def test_cautious_cycles_on_bm1688(instruction, expected):
    assert cycles(instruction, BM1688, cautious=True) == expected


@pytest.mark.parametrize("spec", [BM1684X, BM1688], ids=lambda spec: spec.name)
def test_a_copy_within_local_memory_is_charged_as_a_store(spec):
    store = tensor("copy", *rows_of(64, 2048), store=True, spec=spec)
    inside = tensor(
        "copy", *rows_of(64, 2048), spec=spec, **split_address("src", spec.dma_local_base + 65536)
    )
    for cautious in (False, True):
        assert cycles(inside, spec, cautious) == cycles(store, spec, cautious)


def test_a_cycle_is_one_of_the_slower_clock():
    assert (BM1684X.mhz, BM1688.mhz) == (1000, 750)
