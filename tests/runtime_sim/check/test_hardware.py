"""Rules of the hardware: each by an instruction that breaks it and a twin that does not, and whole programs."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from compiler.bmodel import BModel, read_bmodel
from compiler.target.chips import CHIPS
from compiler.target.isa import (
    ALIGNED,
    COMPACT,
    PER_CHANNEL,
    PRECISION,
    STRIDED,
    Instruction,
    isa_for,
    split_address,
)
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.check.contract import StageChecker, check_file
from runtime_sim.check.hardware import MAX_PROBLEMS, hardware_problems, overlap, problems_of
from runtime_sim.launch.loader import Program
from runtime_sim.launch.queues import CoreProgram
from tests.compiler.target.timing.test_vendor_cycles import DATA
from tests.compiler.target.timing.test_vendor_cycles import instruction as recorded_instruction
from tests.runtime_sim.check.programs import DDR, add_model, add_program, changed, changed_model, local
from tests.runtime_sim.machine.instructions.board import shape_fields, sizes, steps

PROGRAMS = Path(__file__).resolve().parents[4] / "shared/data/vendor_programs"
X = CHIPS["bm1684x"]
LANE = X.lane_bytes
F32, F16, BF16, I8, I16, I32, I4 = (
    PRECISION[name] for name in ("f32", "f16", "bf16", "i8", "i16", "i32", "i4")
)
A, B, C, R = 0, 0x4000, 0x8000, 0xC000  # where operands start
SHAPE = (1, 64, 2, 24)

Fields = dict[str, int]


def operands(precision: int, **addresses: int) -> Fields:
    fields = {f"{name}_addr": address for name, address in addresses.items()}
    return fields | {f"{name}_prec": precision for name in addresses}


def ar(precision: int, **changes: int) -> Fields:
    fields = shape_fields(SHAPE) | operands(precision, opd0=A, opd1=B, res0=R)
    return fields | {"tsk_opd_num": 2, "opd0_sign": 1, "opd1_sign": 1} | changes


def strided(operand: str, *strides: int) -> Fields:
    return {f"{operand}_{axis}_str": stride for axis, stride in zip("nchw", strides, strict=True)} | {
        f"{operand}_str": STRIDED
    }


def dma(source: int, target: int, **changes: int) -> Fields:
    both = {"stride_enable": 1, "nchw_copy": 1, "src_data_format": BF16}
    return split_address("src", source) | split_address("dst", target) | both | changes


def moved(side: str, *strides: int) -> Fields:
    return sizes(side, (1, 64, 2, 24)) | steps(side, (*strides, 0, 0, 0, 0)[:4])


F32_ROW = shape_fields((1, 64, 1, 32))
BASES: dict[str, tuple[str, str, Fields]] = {
    "add": ("ar", "add", ar(BF16)),
    "strided": ("ar", "add", ar(BF16, **strided("opd0", 0, 64, 24, 1), **strided("res0", 0, 64, 24, 1))),
    "mul": ("ar", "mul", ar(I16)),
    "and": ("ar", "and", ar(I8)),
    "max": ("ar", "max", ar(I16)),
    "shift": ("ar", "ashift", ar(I16, opd1_prec=I8)),
    "adds": ("ar", "adds", ar(I16, res0_prec=I32, tsk_opd_num=3, opd2_const=1, opd2_prec=I8)),
    "div": ("ar", "div", ar(F32)),
    "select": ("ar", "select_gt", ar(F32, tsk_opd_num=3, opd2_const=1)),
    "not": ("ar", "not", ar(I8, tsk_opd_num=1)),
    "copy": ("ar", "copy", ar(BF16, tsk_opd_num=1)),
    "cast": ("ar", "cast", ar(F32, res0_prec=BF16, tsk_opd_num=1)),
    "cmp": (
        "cmp", "gt_and_sel",
        shape_fields(SHAPE) | {"opd0_prec": F32, "opd2_prec": I32, "opd0_addr": A, "opd1_addr": B, "opd2_addr": C}
        | {"opd3_addr": 0x10000, "res0_addr": R, "res1_addr": 0x14000},
    ),
    "nn": (
        "mm2", "nn",
        operands(BF16, opd0=A, res0=R) | {"opd1_addr": B, "res0_prec": F32, "res0_c": 32, "res0_w": 48}
        | {"opd1_c": 64, "opd1_w": 48},
    ),
    "nt": (
        "mm2", "nt",
        operands(BF16, opd0=A, res0=R) | {"opd1_addr": B, "res0_prec": F32, "res0_c": 32, "res0_w": 48}
        | {"opd1_c": 48, "opd1_w": 64, "res_add": 1},
    ),
    "mm": (
        "mm", "normal",
        operands(F32, opd0=A, res0=R) | {"opd1_addr": B, "res0_c": 4, "res0_w": 16, "opd0_n": 1, "opd0_c": 4}
        | {"opd0_w": 16, "opd1_w": 16, "opd2_const": 1},
    ),
    "rsqrt": ("sfu", "rsqrt", F32_ROW | operands(F32, opd0=A, res0=R)),
    "normalize": ("sfu", "normalize", F32_ROW | operands(F32, opd0=A, res0=R)),
    "taylor": ("sfu", "taylor", F32_ROW | operands(F32, opd0=A, res0=R) | {"opd1_addr": B, "opd1_n": 8}),
    "pool": (
        "pord", "avgpooling",
        shape_fields((1, 64, 1, 2)) | operands(F32, opd0=A, res0=R)
        | {"opd0_h": 4, "opd0_w": 2, "opd1_h": 4, "opd1_w": 1, "res_op_x_str": 1, "res_op_y_str": 1}
        | {"opd1_const": 1, "opd2_const": 1, "opd3_const": 1},
    ),
    "depthwise": (
        "pord", "depthwise",
        shape_fields((1, 64, 1, 2)) | operands(F32, opd0=A, res0=R)
        | {"opd0_h": 4, "opd0_w": 2, "opd1_h": 4, "opd1_w": 1, "opd1_addr": B, "opd2_const": 1, "opd3_const": 1},
    ),
    "dq0": ("rqdq", "dq0", F32_ROW | operands(F32, opd0=A, res0=R) | {"opd0_prec": I8, "opd1_addr": B}),
    "lin": ("lin", "mac", F32_ROW | {"opd0_addr": A, "opd1_addr": B, "opd2_addr": C, "res0_addr": R, "res0_prec": F32}),
    "cw": (
        "tsbc", "cw_ts",
        shape_fields((1, 20, 2, 30)) | {"opd0_c": 30, "opd0_w": 20, "opd0_addr": A, "res0_addr": R, "res0_prec": F32},
    ),
    "wc": (
        "tsbc", "wc_ts",
        shape_fields((1, 20, 1, 30)) | {"opd0_c": 30, "opd0_w": 20, "opd0_addr": A, "res0_addr": R, "res0_prec": F32},
    ),
    "l_copy": ("tsbc", "l_copy", shape_fields((1, 8, 1, 30)) | {"opd0_addr": A, "res0_addr": R, "res0_prec": F32}),
    "l_bc": ("tsbc", "l_bc", shape_fields((1, 64, 1, 30)) | {"opd0_addr": A, "res0_addr": R, "res0_prec": F32}),
    "s_bc": (
        "tsbc", "s_bc",
        shape_fields((1, 64, 1, 16)) | {"opd0_addr": X.tiu_static_base, "res0_addr": R, "res0_prec": F32},
    ),
    "s_distribute": (
        "tsbc", "s_distribute",
        shape_fields((1, 16, 1, 1)) | {"opd0_addr": X.tiu_static_base, "res0_addr": R, "res0_prec": F32},
    ),
    "sgl": ("sgl", "pe_s_gather_line", F32_ROW | {"opd1_prec": I16}),
    "sg": ("sg", "pe_s_gather_d1coor", F32_ROW | {"opd1_prec": I16}),
    "load": ("dma_tensor", "copy", dma(DDR, local(0)) | moved("src", 0, 48, 24, 1) | moved("dst", 0, 64, 24, 1)),
    "store": ("dma_tensor", "copy", dma(local(0), DDR) | moved("src", 0, 64, 24, 1) | moved("dst", 0, 48, 24, 1)),
    "packed": ("dma_tensor", "copy", dma(DDR, local(0), stride_enable=0) | moved("src")),
    "inside": ("dma_tensor", "copy", dma(local(0), local(0x1000)) | moved("src", 0, 64, 24, 1) | moved("dst", 0, 64, 24, 1)),
    "outside": ("dma_tensor", "copy", dma(DDR, DDR + 96) | moved("src", 0, 96, 24, 1) | moved("dst", 0, 96, 24, 1)),
    "fill": ("dma_tensor", "copy", dma(0, local(0), fill_constant_en=1) | moved("dst", 0, 64, 24, 1)),
    "broadcast": (
        "dma_tensor", "broadcast",
        dma(DDR, local(0), stride_enable=0, nchw_copy=0) | sizes("src", (1, 1, 1, 24)) | {"dst_csize": 64},
    ),
    "turn": ("dma_cw_transpose", "copy", dma(DDR, local(0), stride_enable=0) | moved("src")),
    "matrix": (
        "dma_matrix", "copy",
        dma(DDR, local(0), nchw_copy=0, src_hsize=2, src_wsize=640, src_hstride=640)
        | {"dst_nsize": 2, "dst_csize": 64, "dst_wsize": 10, "dst_nstride": 32, "dst_cstride": 32},
    ),
    "general": ("dma_general", "copy", dma(DDR, local(0), move_length=100)),
    "lanes": ("dma_general", "broadcast", dma(DDR, local(0), move_length=100, dst_csize=64)),
    "gather": (
        "dma_gather", "copy",
        dma(DDR, local(0), nchw_copy=0, src_csize=1, src_hsize=40, src_hstride=24, src_wsize=24)
        | {"dst_hstride": 32, "dst_cstride": 32, "index_csize": 8, "index_hsize": 1, "index_cstride": 1}
        | split_address("index", DDR + 0x10000),
    ),
    "scatter": (
        "dma_scatter", "copy",
        dma(local(0), DDR, nchw_copy=0, src_csize=1, dst_hsize=40, dst_hstride=24, src_wsize=24, dst_csize=1)
        | {"src_hstride": 32, "src_cstride": 32, "index_csize": 1, "index_hsize": 8, "index_hstride": 1}
        | split_address("index", DDR + 0x10000),
    ),
}  # fmt: skip


def decoded(base: str, chip: str = "bm1684x", size: int = 0, **changes: int) -> Instruction:
    """Through bytes and back, so that the fields not given are 0 or the layout's defaults."""
    name, kind, fields = BASES[base]
    isa, engine = isa_for(CHIPS[chip]), "dma" if name.startswith("dma") else "tiu"
    (instruction,) = isa.decode(engine, isa.encode(name, kind, fields | changes, size))
    return instruction


def problems(base: str, chip: str = "bm1684x", size: int = 0, **changes: int) -> list[str]:
    return list(problems_of(decoded(base, chip, size, **changes), CHIPS[chip]))


@pytest.mark.parametrize("base", BASES)
def test_sound_instructions_pass(base):
    assert problems(base) == []


# Base, what breaks the rule, what just keeps it, and the sentence.
CASES: dict[str, tuple[str, Fields, Fields, str]] = {
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
    # types
    "mixed floats": ("add", {"opd1_prec": F32}, {"opd1_prec": BF16}, "mixes bf16, f32 into bf16"),
    "wider result": ("add", {"res0_prec": F32}, {"res0_prec": BF16}, "mixes bf16, bf16 into f32"),
    "integer among floats": ("mul", {"opd1_prec": BF16}, {"res0_prec": I32}, "mixes i16, bf16 into i16"),
    "bits of floats": ("and", {"opd0_prec": F16}, {"opd0_prec": I16}, "is for integers, not for f16"),
    "inverted floats": ("not", {"opd0_prec": BF16, "res0_prec": BF16}, {"opd1_prec": BF16}, "is for integers, not for bf16"),
    "saturating floats": ("adds", {"res0_prec": F32}, {"res0_prec": I32}, "is for integers, not for f32"),
    "shift in memory": ("adds", {"opd2_const": 0, "opd2_addr": C}, {"opd2_addr": 7}, "the shift, opd2, is no constant of type i8"),
    "wide constant shift": ("adds", {"opd2_prec": I16}, {"tsk_opd_num": 2, "opd2_prec": I16}, "the shift, opd2, is no constant of type i8"),
    "wide shift": ("shift", {"opd1_prec": I16}, {"opd1_prec": I8}, "the shift is i16, expected i8"),
    "signs": ("max", {"opd1_sign": 0}, ar(F32, opd1_sign=0), "compares a signed and an unsigned integer"),
    "division": ("div", {"opd0_prec": BF16, "opd1_prec": BF16, "res0_prec": BF16}, {}, "is for f32, not for bf16, bf16, bf16"),
    "mixed selection": ("select", {"opd1_prec": F16}, {"opd2_const": 0, "opd2_addr": R + 3}, "compares f32, f16"),
    "rounding of a float": ("cast", {"opd2_n_str": 5}, {"opd2_n_str": 4}, "the round mode is 5, the last is 4"),
    "rounding to an integer": ("cast", {"res0_prec": I8, "opd2_n_str": 6}, {"opd0_prec": I32, "res0_prec": I8, "opd2_n_str": 6}, "the round mode is 6, the last is 4"),
    "rounding of a shift": ("shift", {"opd2_n_str": 7}, {"opd2_n_str": 6}, "the round mode is 7, the last is 6"),
    "product of f32": ("nn", {"opd0_prec": F32}, {"opd0_prec": F16}, "cannot read f32"),
    "product into another half": ("nn", {"res0_prec": F16}, {"res0_prec": BF16}, "mixes bf16, bf16 into f16"),
    "integer product": ("nn", {"opd0_prec": I8, "res0_prec": I8}, {"opd0_prec": I8, "res0_prec": I32}, "sums i8 into i8, expected i32"),
    "zero point of floats": ("nn", {"opd2_addr": 3}, {"opd0_prec": I8, "res0_prec": I32, "opd2_addr": 3}, "opd2 of a float product is not the constant 0"),
    "square root": ("rsqrt", {"opd0_prec": BF16, "res0_prec": BF16}, {}, "is for f32, not from bf16 to bf16"),
    "exponent": ("normalize", {"res0_prec": I16}, {"res0_prec": I32}, "is from f32 to f32 or i32, not from f32 to i16"),
    "polynomial": ("taylor", {"res0_prec": BF16}, {"opd0_prec": BF16, "res0_prec": BF16}, "is for one type of float, not from f32 to bf16"),
    "short polynomial": ("taylor", {"opd1_n": 1}, {"opd1_n": 2}, "opd1_n is 1, the least is 2"),
    "dequantized to half": ("dq0", {"res0_prec": BF16}, {"opd0_prec": I16}, "is from i8 or i16 to f32, not from i8 to bf16"),
    "wide indices": ("sg", {"opd1_prec": I32}, {"opd1_prec": I8}, "its indices are i32, expected i8 or i16"),
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
    "channels of a gather": ("gather", {"src_csize": 3}, {"src_csize": 8}, "src_csize 3 and index_csize 8 do not match"),
    "channels written": ("gather", {"dst_csize": 64}, {"dst_csize": 8}, "dst_csize is 64, but 8 channels are written"),
    "one row for many lanes": ("gather", {"dst_csize": 8, "index_csize": 1}, {"dst_csize": 8, "index_csize": 1, "src_csize": 8}, "dst_csize is 8, but 1 channels are written"),
    "items written": ("gather", {"dst_wsize": 12}, {"dst_wsize": 24}, "dst_wsize is 12, but 24 items are written"),
    "step of indices": ("gather", {"index_hsize": 2, "index_hstride": 2, "index_cstride": 4}, {"index_hsize": 2, "index_hstride": 1, "index_cstride": 2}, "index_hstride is 2, expected 1"),
    # alignment
    "aligned operand": ("add", {"opd0_addr": 0x1020}, {"opd0_addr": 0x1040}, "opd0 at 0x1020 is not a multiple of 64 bytes"),
    "aligned result": ("add", {"res0_addr": R + 2}, {"res0_addr": R + 64}, "res0 at 0xc002 is not a multiple of 64 bytes"),
    "strided operand": ("strided", {"opd0_addr": A + 1}, {"opd0_addr": A + 2}, "opd0 at 0x1 is not a multiple of 2 bytes"),
    "compact operand": ("add", {"opd1_str": COMPACT, "opd1_addr": B + 1}, {"opd1_str": COMPACT, "opd1_addr": B + 2}, "opd1 at 0x4001 is not a multiple of 2 bytes"),
    "operand per channel": ("add", {"opd1_str": PER_CHANNEL, "opd1_addr": B + 1}, {"opd1_str": PER_CHANNEL, "opd1_addr": B + 2}, "opd1 at 0x4001 is not a multiple of 2 bytes"),
    "matrix operand": ("nn", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "f32 matrix operand": ("mm", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "coefficients": ("taylor", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "data of a polynomial": ("taylor", {"opd0_addr": A + 32}, {"opd0_addr": A + 64}, "opd0 at 0x20 is not a multiple of 64 bytes"),
    "pooled": ("pool", {"opd0_addr": A + 4}, {"opd0_addr": A + 64}, "opd0 at 0x4 is not a multiple of 64 bytes"),
    "pooling result": ("pool", {"res0_addr": R + 4}, {"res0_addr": R + 64}, "res0 at 0xc004 is not a multiple of 64 bytes"),
    "weights of a window": ("depthwise", {"opd1_addr": B + 2}, {"opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "payload": ("cmp", {"opd2_addr": C + 4}, {"opd2_addr": C + 64}, "opd2 at 0x8004 is not a multiple of 64 bytes"),
    "second result": ("cmp", {"res1_addr": 0x14004}, {"res1_addr": 0x14040}, "res1 at 0x14004 is not a multiple of 64 bytes"),
    "value per lane": ("cmp", {"opd1_str": STRIDED, "opd1_addr": B + 2}, {"opd1_str": STRIDED, "opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "parameters": ("dq0", {"opd1_addr": B + 8}, {"opd1_addr": B + 64}, "opd1 at 0x4008 is not a multiple of 64 bytes"),
    "factor per channel": ("lin", {"opd1_addr": B + 2}, {"opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "line-aligned result": ("cw", {"res0_addr": R + 4}, {"res0_addr": R + 64}, "res0 at 0xc004 is not a multiple of 64 bytes"),
    "transposed source": ("wc", {"opd0_addr": A + 4}, {"opd0_addr": A + 64}, "opd0 at 0x4 is not a multiple of 64 bytes"),
    "distributed result": ("s_distribute", {"res0_addr": R + 2}, {"res0_addr": R + 4}, "res0 at 0xc002 is not a multiple of 4 bytes"),
    "DMA from an odd byte": ("load", split_address("src", DDR + 1), split_address("src", DDR + 2), "src at 0x100000001 is not a multiple of 2 bytes"),
    "DMA to an odd byte": ("load", split_address("dst", local(1)), split_address("dst", local(2)), "dst at 0x1 is not a multiple of 2 bytes"),
    "DMA to an aligned tensor": ("packed", split_address("dst", local(2)), split_address("dst", local(64)), "dst at 0x2 is not a multiple of 64 bytes"),
    "indices": ("gather", split_address("index", DDR + 2), split_address("index", DDR + 0x10004), "index at 0x100000002 is not a multiple of 4 bytes"),
    "local indices": ("gather", split_address("index", local(0x1004)), split_address("index", local(0x1040)), "index at 0x1004 is not a multiple of 64 bytes"),
    # bounds
    "end of a lane": ("add", {"res0_addr": LANE - 64}, {"res0_addr": LANE - 128}, "res0 ends at byte 0x40020 of a lane of 0x40000"),
    "second slot": ("add", {"res0_addr": LANE - 128, "res0_c": 65}, {"res0_addr": LANE - 256, "res0_c": 65}, "res0 ends at byte 0x40060 of a lane of 0x40000"),
    "no lane": ("l_copy", {"res0_addr": 64 * LANE}, {"res0_addr": 63 * LANE}, "res0 at 0x1000000 is on no lane"),
    "DMA beyond a lane": ("load", split_address("dst", local(LANE - 64)), split_address("dst", local(LANE - 128)), "dst ends at byte 0x40020 of a lane of 0x40000"),
    "fill beyond a lane": ("fill", split_address("dst", local(LANE - 64)), split_address("dst", local(LANE - 128)), "dst ends at byte 0x40020 of a lane of 0x40000"),
    "static memory": ("s_bc", {"opd0_addr": X.tiu_static_base + X.static_bytes - 60}, {"opd0_addr": X.tiu_static_base + X.static_bytes - 64}, "opd0 at 0x9003fc4 is not all in static memory"),
    "before static memory": ("s_distribute", {"opd0_addr": X.tiu_static_base - 4}, {"opd0_addr": X.tiu_static_base + 4}, "opd0 at 0x8fffffc is not all in static memory"),
    # lanes
    "lanes of an addition": ("add", {"opd1_addr": B + LANE}, {name: LANE for name in ("opd0_addr", "opd1_addr")} | {"opd1_addr": B + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, opd1 on 1, res0 on 0"),
    "lane of coefficients": ("taylor", {"opd1_addr": B + LANE}, {"opd0_addr": LANE, "opd1_addr": B + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, opd1 on 1, res0 on 0"),
    "lane of a right operand": ("nn", {"opd1_addr": B + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "opd1 starts on lane 1, expected lane 0"),
    "lane of a transposed operand": ("nt", {"opd1_addr": B + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "opd1 starts on lane 1, expected lane 0"),
    "lanes of a product": ("nt", {"res0_addr": R + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, res0 on 1"),
    "lane of a left operand": ("mm", {"opd0_addr": A + LANE, "opd1_addr": B + LANE, "res0_addr": R + LANE}, {}, "opd0 starts on lane 1, expected lane 0"),
    "lane of a source": ("cw", {"opd0_addr": LANE}, {"res0_addr": R + LANE}, "opd0 starts on lane 1, expected lane 0"),
    "lane of a transpose": ("wc", {"res0_addr": R + LANE}, {"opd0_addr": LANE}, "res0 starts on lane 1, expected lane 0"),
    # overlap
    "in place in part": ("add", {"res0_addr": A + 64}, {"res0_addr": A}, "res0 overlaps opd0"),
    "second operand": ("add", {"res0_addr": B + 64}, {"res0_addr": B}, "res0 overlaps opd1"),
    "in place with other strides": ("strided", strided("opd0", 0, 64, 1, 2) | {"res0_addr": A}, strided("opd0", 7, 64, 24, 1) | {"res0_addr": A}, "res0 overlaps opd0"),
    "in place with a broadcast": ("strided", strided("opd0", 0, 64, 0, 1) | {"res0_addr": A}, strided("opd0", 0, 64, 0, 1) | {"res0_addr": 48}, "res0 overlaps opd0"),
    "in place with other items": ("cast", {"res0_addr": A}, {"res0_prec": I32, "res0_addr": A}, "res0 overlaps opd0"),
    "between items": ("strided", strided("opd0", 0, 64, 48, 2) | strided("res0", 0, 64, 48, 2) | {"res0_addr": A + 4}, strided("opd0", 0, 64, 48, 2) | strided("res0", 0, 64, 48, 2) | {"res0_addr": A + 2}, "res0 overlaps opd0"),
    "square root in place": ("rsqrt", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "result over coefficients": ("taylor", {"res0_addr": B}, {"res0_addr": B + 64}, "res0 overlaps opd1"),
    "pooling in place": ("pool", {"res0_addr": A}, {"res0_addr": A + 64}, "res0 overlaps opd0"),
    "pooling of single items in place": ("pool", {"res0_addr": A, "opd0_h": 1, "opd1_h": 1}, {"opd0_h": 1, "opd1_h": 1}, "res0 overlaps opd0"),
    "copy onto itself": ("l_copy", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "product over its operand": ("nt", {"res0_addr": B}, {"res0_addr": B + 128}, "res0 overlaps opd1"),
    "one result over the other": ("cmp", {"res1_addr": R}, {"res1_addr": C}, "res1 overlaps res0"),
    "transpose in place": ("wc", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "broadcast over its source": ("l_bc", {"res0_addr": A + 64}, {"res0_addr": A}, "res0 overlaps opd0"),
    "copy within a lane": ("l_copy", {"res0_addr": A + 64}, {"res0_addr": A + 64 + 8 * LANE}, "res0 overlaps opd0"),
    "DMA inside": ("inside", split_address("dst", local(32)), split_address("dst", local(96)), "dst overlaps src"),
    "DMA outside": ("outside", {"src_cstride": 95}, {"src_cstride": 96}, "dst overlaps src"),
    "DMA in place": ("inside", split_address("dst", local(0)), split_address("dst", local(64 * LANE - LANE) + 128), "dst overlaps src"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    base, broken, sound, sentence = CASES[case]
    assert problems(base, **sound) == []
    assert problems(base, **broken) == [sentence]


SIZE = re.compile(r"(res0|opd[01])_[nchw]|(src|index)_[nchw]size|move_length")
NOT_NEEDED = {("mm", "opd1_w"), *product(("cw", "wc"), ("opd0_c", "opd0_w"))}
SIZES = [(base, name) for base, (_, _, fields) in BASES.items() for name in fields if SIZE.fullmatch(name)]


@pytest.mark.parametrize(("base", "name"), [size for size in SIZES if size not in NOT_NEEDED])
def test_no_size_is_zero(base, name):
    assert any(f"{name} is 0" in problem for problem in problems(base, **{name: 0}))


def bytes_of(operand: str, fields: Fields, address: int) -> set[int]:
    """Addresses of a bf16 tensor's bytes, item by item."""
    n_str, c_str, h_str, w_str = (fields[f"{operand}_{axis}_str"] for axis in "nchw")
    found = set()
    for n, c, h, w in product(*(range(fields[f"res0_{axis}"]) for axis in "nchw")):
        slot, lane = divmod(address // LANE + c, X.lanes)
        start = lane * LANE + address % LANE + 2 * (n * n_str + slot * c_str + h * h_str + w * w_str)
        found |= {start, start + 1}
    return found


def test_overlap_is_exact(monkeypatch):
    monkeypatch.setattr("runtime_sim.check.hardware.operands.IN_PLACE", ())
    rng, outcomes = random.Random(0), Counter()
    for _ in range(400):
        fields = ar(BF16, tsk_opd_num=1) | shape_fields([rng.randint(1, most) for most in (2, 70, 3, 5)])
        for operand in ("opd0", "res0"):
            fields |= strided(operand, *(rng.choice([0, 1, 2, 3, 8, 40]) for _ in range(4)))
        lane = rng.choice([0, 5, 62]) * LANE
        fields |= {"opd0_addr": lane + 2 * rng.randint(0, 40), "res0_addr": lane + 2 * rng.randint(0, 40)}
        meet = bool(
            bytes_of("opd0", fields, fields["opd0_addr"]) & bytes_of("res0", fields, fields["res0_addr"])
        )
        found = problems("copy", **fields)
        assert found == (["res0 overlaps opd0"] if meet else []), fields
        outcomes[meet] += 1
    assert min(outcomes.values()) > 50


def test_beyond_a_limit_gaps_count(monkeypatch):
    between = CASES["between items"][2]
    assert problems("strided", **between) == []
    monkeypatch.setattr(overlap, "MAX_RUNS", 8)
    assert problems("strided", **between) == ["res0 overlaps opd0"]


BM1688: dict[str, tuple[str, Fields, Fields, str]] = {
    "narrower EU": ("add", {"opd0_addr": A + 8}, {"opd0_addr": A + 16}, "opd0 at 0x8 is not a multiple of 16 bytes"),
    "shorter lanes": ("add", {"res0_addr": (1 << 17) - 64}, {"res0_addr": (1 << 17) - 192}, "res0 ends at byte 0x20080 of a lane of 0x20000"),
    "fewer lanes": ("l_copy", {"res0_addr": 32 << 17}, {"res0_addr": 31 << 17}, "res0 at 0x400000 is on no lane"),
    "no type": ("copy", {"opd0_prec": 7}, {"opd0_prec": I4}, "opd0_prec is 7, which is no type of this chip"),
    "half bytes": ("copy", {"opd0_prec": I4, "opd0_addr": A + 1}, {"opd0_prec": I4, "opd0_addr": A + 1} | strided("opd0", 0, 48, 24, 1), "opd0 at 0x1 is not a multiple of 16 bytes"),
    "half bytes in place": ("copy", {"opd0_prec": I4, "res0_prec": I8, "res0_addr": A}, {"opd0_prec": I4, "res0_prec": I8, "res0_addr": A + 64}, "res0 overlaps opd0"),
    "product of two types": ("nn", {"opd1_prec": F16}, {"opd1_prec": BF16}, "mixes bf16, f16 into f32"),
    "integer product": ("nn", {"opd0_prec": I8, "res0_prec": I8}, {"opd0_prec": I8, "res0_prec": I8, "rq": 1}, "sums i8 into i8, expected i32"),
    "pooling into another sign": ("pool", {"opd0_sign": 1, "res0_sign": 0}, {"opd0_sign": 1}, "pools a signed type into an unsigned one, or the other way round"),
    "bias": ("nn", {"opd1_prec": BF16, "opd2_const": 0}, {"opd1_prec": BF16, "opd2_const": 1}, "opd2 of a float product is not the constant 0"),
    "static memory": ("s_bc", {"opd0_addr": 0x10000 - 60}, {"opd0_addr": 0x10000 - 64}, "opd0 at 0xffc4 is not all in static memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", BM1688)
def test_rules_of_bm1688(case):
    base, broken, sound, sentence = BM1688[case]
    assert problems(base, "bm1688", **sound) == []
    assert problems(base, "bm1688", **broken) == [sentence]


def test_lanes_left_out_by_a_long_form():
    assert problems("add", size=128) == []
    assert problems("add", size=128, tsk_lane_num=3) == ["tsk_lane_num is 0x3: some lanes are left out"]


def test_an_unknown_instruction_is_left_alone():
    (instruction,) = isa_for(X).decode("tiu", isa_for(X).encode("conv", "normal", {}))
    assert problems_of(instruction, X) == []


# ---- streams ----


def test_sentences_name_the_instruction():
    core = add_program((DDR, DDR + 0x10000), DDR + 0x20000).core()
    core = changed(core, "tiu", 3, opd0_addr=0x10020, opd1_prec=F32)
    core = changed(core, "dma", 2, dst_wstride=0)
    assert list(hardware_problems(core, X)) == [
        "tiu 3 (ar.add): mixes bf16, f32 into bf16",
        "dma 2 (dma_tensor.copy): dst_wstride is 0",
    ]


def test_equal_instructions_are_all_named_up_to_a_limit():
    core = CoreProgram([replace(decoded("add", res0_addr=A + 64))] * (MAX_PROBLEMS + 5), [])
    found = list(hardware_problems(core, X))
    assert found == [f"tiu {number + 1} (ar.add): res0 overlaps opd0" for number in range(MAX_PROBLEMS)]


def test_files_are_checked():
    broken = changed_model(add_model(), "tiu", 2, opd0_addr=0x10010)
    assert check_file(Program(add_model())) == []
    sentence = "net add: tiu 2 (ar.add): opd0 at 0x10010 is not a multiple of 64 bytes"
    assert sentence in check_file(Program(broken))


def test_the_second_core_is_named():
    stage = Program(changed_model(add_model(), "tiu", 2, opd0_addr=0x10010)).stage("add")
    found = list(StageChecker(X).problems(replace(stage, cores=[stage.cores[0]] * 2)))
    assert "core 1 tiu 2 (ar.add): opd0 at 0x10010 is not a multiple of 64 bytes" in found


# ---- compiled programs ----


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint, tmp_path_factory) -> BModel:
    folder = tmp_path_factory.mktemp("model")
    path = convert(ConvertOptions(tiny_checkpoint("qwen3"), 64, "w4bf16", out_dir=folder / "out"))
    assert path is not None
    return read_bmodel(path)


def is_eu_aligned(instruction: Instruction) -> bool:
    return "res0_addr" in instruction.fields and instruction.fields.get("res0_str", ALIGNED) == ALIGNED


@pytest.mark.parametrize("name", ["block_0", "block_cache_0", "lm_head"])
def test_an_address_off_by_four_is_found_in_a_file(compiled, name):
    net = compiled.net(name)
    model = replace(compiled, nets=[net, *(other for other in compiled.nets if other.name != name)])
    assert check_file(Program(model), hashes=False) == []
    stream = Program(model).stage(name).cores[0].tiu
    numbers = [number for number, instruction in enumerate(stream, 1) if is_eu_aligned(instruction)]
    for number in numbers[:: len(numbers) // 3]:
        address = stream[number - 1].fields["res0_addr"] + 4
        found = check_file(Program(changed_model(model, "tiu", number, res0_addr=address)), hashes=False)
        start = f"net {name}: tiu {number} ("
        assert any(each.startswith(start) and each.endswith("of 64 bytes") for each in found), found


@pytest.mark.shared
@pytest.mark.parametrize("chip", ["bm1684x", "bm1688"])
@pytest.mark.parametrize("net", ["block_0", "block_cache_0"])
def test_programs_of_the_vendor_keep_the_rules(chip, net):
    path = PROGRAMS / chip / f"{net}.bmodel"
    if not path.exists():
        pytest.skip(f"NOT RUN: {path} is missing")
    program = Program(read_bmodel(path))
    for core in program.stage(net).cores:
        assert list(hardware_problems(core, program.spec)) == []


@pytest.mark.shared
def test_recorded_instructions_of_the_vendor_keep_the_rules():
    if not DATA.is_file():
        pytest.skip(f"NOT RUN: {DATA} is missing")
    for line in DATA.read_text().splitlines():
        instruction = recorded_instruction(json.loads(line))
        assert problems_of(instruction, X) == [], instruction
