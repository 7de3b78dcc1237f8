"""Fields: codes, sizes, operand counts, lanes, and what each DMA instruction asks of its own."""

from __future__ import annotations

import re
from itertools import product

import pytest

from compiler.target.isa import COMPACT, split_address
from tests.runtime_sim.check.hardware.instructions import BASES, I4, I8, Rule, check_rule, problems
from tests.runtime_sim.check.programs import DDR, local

CASES: dict[str, Rule] = {
    # fields
    "int4 on BM1684X": ("copy", {"opd0_prec": I4, "res0_prec": I8}, {"opd0_prec": I8, "res0_prec": I8}, "opd0_prec is 6, which is no type of this chip"),
    "int4 by DMA": ("load", {"src_data_format": I4}, {"src_data_format": I8}, "src_data_format is 6, which is no type of this chip"),
    "no layout": ("add", {"opd0_str": 4}, {"opd0_str": COMPACT}, "opd0_str is 4, which is no layout"),
    "no width": ("add", {"res0_w": 0}, {"res0_w": 1}, "res0_w is 0"),
    "no columns": ("nn", {"opd1_c": 0}, {"opd1_c": 1}, "opd1_c is 0"),
    "no kernel": ("pool", {"opd1_w": 0}, {"opd1_w": 1}, "opd1_w is 0"),
    "no items by DMA": ("load", {"src_nsize": 0}, {"src_nsize": 1}, "src_nsize is 0"),
    "no items filled": ("fill", {"dst_csize": 0, "src_nsize": 1, "src_hsize": 2, "src_wsize": 24}, {"dst_csize": 1}, "src_csize is 0"),
    "no length": ("general", {"move_length": 0}, {"move_length": 1}, "move_length is 0"),
    "no indices": ("gather", {"index_hsize": 0}, {"index_hsize": 1}, "index_hsize is 0"),
    "too high for pooling": ("pool", {"opd0_h": 32768}, {"opd0_h": 32767, "opd0_w": 1, "res0_addr": 0x20000}, "opd0_h is 32768, the most is 32767"),
    "wide stride": ("strided", {"opd0_h_str": 1 << 18, "res0_h": 1}, {"opd0_h_str": (1 << 18) - 1, "res0_h": 1}, "opd0_h_str is 262144, the most is 262143"),
    "operands of an addition": ("add", {"tsk_opd_num": 1}, {"tsk_opd_num": 2}, "tsk_opd_num is 1, expected 2 or 3"),
    "operands of a copy": ("copy", {"tsk_opd_num": 2}, {"tsk_opd_num": 1}, "tsk_opd_num is 2, expected 1"),
    "no operands": ("add", {"tsk_opd_num": 0}, {"tsk_opd_num": 3, "opd2_const": 1}, "tsk_opd_num is 0, expected 2 or 3"),
    "lanes left out by DMA": ("load", {"localmem_mask_h32": 1}, {"localmem_mask_h32": 0xFFFFFFFF}, "localmem_mask_h32 is 0x1: some lanes are left out"),
    "id not counted": ("add", {"cmd_id_en": 0}, {"cmd_id_en": 1}, "cmd_id_en is 0"),
    # DMA
    "w stands still": ("load", {"src_wstride": 0}, {"src_cstride": 0, "src_hstride": 0}, "src_wstride is 0"),
    "w of the target stands still": ("fill", {"dst_wstride": 0}, {"src_wstride": 0}, "dst_wstride is 0"),
    "broadcast of channels": ("broadcast", {"src_csize": 2}, {"src_csize": 1}, "src_csize is 2, expected 1"),
    "broadcast to no lane": ("lanes", {"dst_csize": 0}, {"dst_csize": 1}, "dst_csize is 0"),
    "matrix as a tensor": ("matrix", {"nchw_copy": 1}, {"nchw_copy": 0}, "needs nchw_copy 0 and stride_enable 1"),
    "matrix without strides": ("matrix", {"stride_enable": 0}, {"stride_enable": 1}, "needs nchw_copy 0 and stride_enable 1"),
    "matrix inside": ("matrix", split_address("src", local(0x1000)), split_address("src", DDR), "goes between local memory and global memory only"),
    "matrix of no blocks": ("matrix", {"dst_wsize": 0}, {"dst_wsize": 10}, "dst_wsize is 0"),
    "matrix of no rows": ("matrix", {"src_hsize": 0}, {"src_hsize": 2}, "src_hsize is 0"),
    "matrix of planes": ("matrix", {"dst_hsize": 2}, {"dst_hsize": 1}, "dst_hsize is 2, expected 0 or 1"),
    "matrix of other rows": ("matrix", {"dst_nsize": 1}, {"dst_nsize": 2}, "dst_nsize is 1, but the matrix has 2 rows"),
    "transposed matrix of other rows": ("transposed", {"dst_nsize": 2}, {"dst_nsize": 3}, "dst_nsize is 2, but the matrix has 3 rows"),
    "pitch of the last row": ("matrix", split_address("dst", local(0x3FF80)) | {"dst_nstride": 33}, split_address("dst", local(0x3FF80)) | {"dst_nstride": 32}, "2 rows of dst_nstride end at byte 0x40004 of a lane of 0x40000"),
    "channels of a gather": ("gather", {"src_csize": 3}, {"src_csize": 8}, "src_csize 3 and index_csize 8 do not match"),
    "channels written": ("gather", {"dst_csize": 64}, {"dst_csize": 8}, "dst_csize is 64, but 8 channels are written"),
    "one row for many lanes": ("gather", {"dst_csize": 8, "index_csize": 1}, {"dst_csize": 8, "index_csize": 1, "src_csize": 8}, "dst_csize is 8, but 1 channels are written"),
    "items written": ("gather", {"dst_wsize": 12}, {"dst_wsize": 24}, "dst_wsize is 12, but 24 items are written"),
    "step of indices": ("gather", {"index_hsize": 2, "index_hstride": 2, "index_cstride": 4}, {"index_hsize": 2, "index_hstride": 1, "index_cstride": 2}, "index_hstride is 2, expected 1"),
}  # fmt: skip

BM1688: dict[str, Rule] = {
    "no type": ("copy", {"opd0_prec": 7}, {"opd0_prec": I4}, "opd0_prec is 7, which is no type of this chip"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    check_rule(CASES[case])


@pytest.mark.parametrize("case", BM1688)
def test_rules_of_bm1688(case):
    check_rule(BM1688[case], "bm1688")


SIZE = re.compile(r"(res0|opd[01])_[nchw]|(src|index)_[nchw]size|move_length")
NOT_NEEDED = {("mm", "opd1_w"), *product(("cw", "wc"), ("opd0_c", "opd0_w"))}
SIZES = [(base, name) for base, (_, _, fields) in BASES.items() for name in fields if SIZE.fullmatch(name)]


@pytest.mark.parametrize(("base", "name"), [size for size in SIZES if size not in NOT_NEEDED])
def test_no_size_is_zero(base, name):
    assert any(f"{name} is 0" in problem for problem in problems(base, **{name: 0}))


def test_lanes_left_out_by_a_long_form():
    assert problems("add", size=128) == []
    assert problems("add", size=128, tsk_lane_num=3) == ["tsk_lane_num is 0x3: some lanes are left out"]
