"""Instructions for tests of the timing model, decoded as a program's are."""

from __future__ import annotations

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import PRECISION, Instruction, isa_for, split_address
from compiler.target.spec import ChipSpec

Shape = tuple[int, int, int, int]  # n, c, h, w
I8, BF16, F32, I32 = (PRECISION[name] for name in ("i8", "bf16", "f32", "i32"))
F32_IN_OUT = {"res0_prec": F32, "opd0_prec": F32}
COLUMN = (1, 512, 1, 1)


def make(name: str, kind: str, spec: ChipSpec = BM1684X, **fields: int) -> Instruction:
    """An instruction with all its fields, as decoding gives it."""
    isa = isa_for(spec)
    engine = isa.layout(name).engine
    return isa.decode(engine, isa.encode(name, kind, fields))[0]


def shaped(name: str, kind: str, shape: Shape, **fields: int) -> Instruction:
    sizes = dict(zip(("res0_n", "res0_c", "res0_h", "res0_w"), shape, strict=True))
    return make(name, kind, **(sizes | fields))


def on_8(name: str, kind: str, **fields: int) -> Instruction:
    return make(name, kind, BM1688, **fields)


def ar(kind: str, shape: Shape, operands: int, item: int = F32, **fields: int) -> Instruction:
    """Arithmetic on tensors of one type at addresses of their own; `fields` say what differs."""
    precision = {"res0_prec": item, "opd0_prec": item, "opd1_prec": item if operands > 1 else 0}
    places = {"res0_addr": 0x10000, "opd0_addr": 0x20000, "opd1_addr": 0x30000}
    return shaped("ar", kind, shape, **(precision | places | {"tsk_opd_num": operands} | fields))


def matmul(kind: str, rows: int, inner: int, columns: int, **fields: int) -> Instruction:
    right = {"nn": (inner, columns), "nt": (columns, inner), "tt": (columns, inner)}[kind]
    result = (columns, rows) if kind == "tt" else (rows, columns)
    sizes = {"res0_c": result[0], "res0_w": result[1], "opd1_c": right[0], "opd1_w": right[1]}
    return make("mm2", kind, opd0_prec=BF16, res0_prec=F32, **sizes, **fields)


def tensor(
    kind: str, shape: Shape, strides: Shape, item: int = BF16, store: bool = False,
    spec: ChipSpec = BM1684X, **fields: int,
) -> Instruction:  # fmt: skip
    """A tensor command; `shape` is its source's, `strides` those of its DDR side."""
    outer, inner = ("dst", "src") if store else ("src", "dst")
    given = {f"src_{axis}size": size for axis, size in zip("nchw", shape, strict=True)}
    given |= {f"{outer}_{axis}stride": stride for axis, stride in zip("nchw", strides, strict=True)}
    given |= split_address(outer, spec.ddr_base) | split_address(inner, spec.dma_local_base)
    flags = {"stride_enable": 1, "nchw_copy": 1, "src_data_format": item}
    return make("dma_tensor", kind, spec, **(flags | given | fields))


def matrix(
    rows: int, columns: int, width: int, item: int = BF16, spec: ChipSpec = BM1684X, store: bool = False
):
    """A matrix command, a block of `width` columns on each lane."""
    outer, inner = ("dst", "src") if store else ("src", "dst")
    sizes = {f"{outer}_hsize": rows, f"{outer}_wsize": columns, f"{outer}_hstride": columns}
    sizes |= {f"{inner}_nsize": rows, f"{inner}_csize": -(-columns // width), f"{inner}_wsize": width}
    places = split_address(outer, spec.ddr_base) | split_address(inner, spec.dma_local_base)
    return make("dma_matrix", "copy", spec, stride_enable=1, src_data_format=item, **sizes, **places)


def gather(rows: int, width: int, spec: ChipSpec = BM1684X, **fields: int) -> Instruction:
    """Rows of bf16, DDR to DDR, by indices in local memory."""
    sizes = {
        "src_csize": 1,
        "src_hsize": 1000,
        "src_wsize": width,
        "src_hstride": width,
        "dst_hstride": width,
    }
    sizes |= {"index_csize": 1, "index_hsize": rows, "dst_hsize": rows}
    ends = split_address("src", spec.ddr_base) | split_address("dst", spec.ddr_base + (1 << 20))
    ends |= split_address("index", spec.dma_local_base)
    return make("dma_gather", "copy", spec, stride_enable=1, src_data_format=BF16, **(sizes | ends | fields))


def rows_of(count: int, width: int) -> tuple[Shape, Shape]:
    """Rows back to back, each on a lane of its own: shape and strides."""
    return (1, count, 1, width), (count * width, width, width, 1)


def step(width: int, wait: int = 0) -> Instruction:
    """A TIU instruction of `width` cycles."""
    return ar("add", (1, 64, 1, 16 * width), 2, cmd_id_dep=wait)


def load(words: int, wait: int = 0) -> Instruction:
    """A DMA instruction of so many cycles: `words` * 64 bytes to the lanes."""
    return gather(words, 32, cmd_id_dep=wait)
