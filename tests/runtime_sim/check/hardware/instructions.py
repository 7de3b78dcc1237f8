"""Sound instructions of every kind, and what is said of one with some fields changed."""

from __future__ import annotations

from compiler.target.chips import CHIPS
from compiler.target.isa import PRECISION, STRIDED, Instruction, isa_for, split_address
from runtime_sim.check.hardware import problems_of
from tests.runtime_sim.check.programs import DDR, local
from tests.runtime_sim.machine.instructions.board import shape_fields, sizes, steps

X = CHIPS["bm1684x"]
LANE = X.lane_bytes
F32, F16, BF16, I8, I16, I32, I4 = (
    PRECISION[name] for name in ("f32", "f16", "bf16", "i8", "i16", "i32", "i4")
)
A, B, C, R = 0, 0x4000, 0x8000, 0xC000  # where operands start
SHAPE = (1, 64, 2, 24)

Fields = dict[str, int]
Rule = tuple[str, Fields, Fields, str]  # base, what breaks the rule, what just keeps it, and the sentence


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
    "sg": ("sg", "pe_s_gather_d1coor", F32_ROW | operands(F32, opd0=A, opd1=B, res0=R) | {"opd0_w": 32, "opd1_prec": I16}),
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
    "transposed": (
        "dma_matrix", "transpose",
        dma(DDR, local(0), nchw_copy=0, src_hsize=640, src_wsize=3, src_hstride=3)
        | {"dst_nsize": 3, "dst_csize": 64, "dst_wsize": 10, "dst_nstride": 32, "dst_cstride": 32},
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


def check_rule(rule: Rule, chip: str = "bm1684x") -> None:
    base, broken, sound, sentence = rule
    assert problems(base, chip, **sound) == []
    assert problems(base, chip, **broken) == [sentence]
