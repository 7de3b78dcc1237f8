"""Rules about the fields of an instruction: codes, sizes, strides, masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compiler.target.isa import STRIDED, Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.check.hardware.types import BF16, I4, UNARY, float_product_bias, types
from runtime_sim.check.ranges import local_address
from runtime_sim.check.ranges.boxes import NIBBLES

FieldRule = Callable[[Instruction, ChipSpec], Iterator[str]]

MAX_STRIDE = (1 << 18) - 1  # items, of a TIU operand
MAX_POOLED = 32767  # items along h or w of what pooling reads and writes
PRECISIONS = ("res0_prec", "opd0_prec", "opd1_prec", "opd2_prec", "src_data_format")
LAYOUTS = ("res0_str", "opd0_str", "opd1_str", "opd2_str")
RESULT = ("res0_n", "res0_c", "res0_h", "res0_w")
SOURCE = ("src_nsize", "src_csize", "src_hsize", "src_wsize")
TARGET = ("dst_nsize", "dst_csize", "dst_hsize", "dst_wsize")
ROWS = ("src_csize", "src_wsize", "index_csize", "index_hsize")
SIZES = {
    "ar": RESULT,
    "cmp": RESULT,
    "sfu": RESULT,
    "rqdq": RESULT,
    "lin": RESULT,
    "tsbc": RESULT,
    "sg": (*RESULT, "opd0_w"),
    "sgl": RESULT,
    "pord": (*RESULT, "opd0_h", "opd0_w", "opd1_h", "opd1_w"),
    "mm2": ("res0_c", "res0_w", "opd1_c", "opd1_w"),
    "mm": ("res0_c", "res0_w", "opd0_n", "opd0_c", "opd0_w"),
    "dma_tensor": SOURCE,
    "dma_cw_transpose": SOURCE,
    "dma_general": ("move_length",),
    "dma_gather": (*ROWS, "src_hsize"),
    "dma_scatter": (*ROWS, "dst_hsize"),
}
POOLED = ("opd0_h", "opd0_w", "res0_h", "res0_w")
UNDOCUMENTED = ("copy_mb", "first_one", "first_zero")  # how many operands they have
ALL_LANES = {"tsk_lane_num": (1 << 64) - 1, "localmem_mask_l32": 0xFFFFFFFF, "localmem_mask_h32": 0xFFFFFFFF}


def _codes(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields, last = instruction.fields, I4 if spec.native_int4 else BF16
    for name in PRECISIONS:
        if fields.get(name, 0) > last:
            yield f"{name} is {fields[name]}, which is no type of this chip"
    for name in LAYOUTS:
        if fields.get(name, 0) > STRIDED:
            yield f"{name} is {fields[name]}, which is no layout"


def _sizes(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields, names = instruction.fields, SIZES.get(instruction.name, ())
    if names is SOURCE and fields["fill_constant_en"] and all(fields[name] for name in TARGET):
        names = TARGET
    for name in names:
        if fields[name] < 1:
            yield f"{name} is 0"
    if instruction.name == "pord":
        for name in POOLED:
            if fields[name] > MAX_POOLED:
                yield f"{name} is {fields[name]}, the most is {MAX_POOLED}"


def _strides(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields = instruction.fields
    for layout in LAYOUTS:
        if fields.get(layout) == STRIDED:
            for axis in "nchw":
                name = f"{layout[:4]}_{axis}_str"
                if fields.get(name, 0) > MAX_STRIDE:
                    yield f"{name} is {fields[name]}, the most is {MAX_STRIDE}"


def _operand_count(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """This number decides what counts as read."""
    if instruction.name == "ar" and instruction.kind not in UNDOCUMENTED:
        count, is_unary = instruction.fields["tsk_opd_num"], instruction.kind in UNARY
        if count < 1 or (count == 1) != is_unary:
            yield f"tsk_opd_num is {count}, expected {'1' if is_unary else '2 or 3'}"


def _lanes_enabled(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Lanes that a mask leaves out are skipped; channels do not move up."""
    for name, mask in ALL_LANES.items():
        if instruction.fields.get(name, mask) != mask:
            yield f"{name} is {instruction.fields[name]:#x}: some lanes are left out"


def _id_enabled(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Set in all commands of the vendor's, but for those to the system."""
    if instruction.name != "sys" and not instruction.fields.get("cmd_id_en", 1):
        yield "cmd_id_en is 0"


# ---- DMA fields ----

MOVES = ("dma_tensor", "dma_cw_transpose")


def _steps(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Items of a row lie one step or more apart; only n, c and h can stand still."""
    fields = instruction.fields
    if instruction.name in MOVES and fields["stride_enable"]:
        for side in ("dst",) if fields["fill_constant_en"] else ("src", "dst"):
            if fields[f"{side}_wstride"] < 1:
                yield f"{side}_wstride is 0"


def _broadcast(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    if instruction.engine == "dma" and instruction.kind == "broadcast":
        channels = {name: instruction.fields[name] for name in ("src_csize", "dst_csize")}
        if instruction.name == "dma_tensor" and channels["src_csize"] != 1:
            yield f"src_csize is {channels['src_csize']}, expected 1"
        if channels["dst_csize"] < 1:
            yield "dst_csize is 0"


def _matrix(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Rows and columns on one side, in local memory blocks of columns on the other."""
    if instruction.name != "dma_matrix":
        return
    fields = instruction.fields
    if fields["nchw_copy"] or not fields["stride_enable"]:
        yield "needs nchw_copy 0 and stride_enable 1"
    local = [side for side in ("src", "dst") if local_address(instruction.address(side), spec) is not None]
    if len(local) != 1:
        yield "goes between local memory and global memory only"
        return
    (inside,), outside = local, "dst" if local == ["src"] else "src"
    sizes = [f"{inside}_{axis}size" for axis in "ncw"] + [f"{outside}_{axis}size" for axis in "hw"]
    empty = [name for name in sizes if fields[name] < 1]
    yield from (f"{name} is 0" for name in empty)
    if fields[f"{inside}_hsize"] > 1:
        yield f"{inside}_hsize is {fields[f'{inside}_hsize']}, expected 0 or 1"
    if not empty:
        yield from _matrix_rows(instruction, inside, outside, spec)


def _matrix_rows(instruction: Instruction, inside: str, outside: str, spec: ChipSpec) -> Iterator[str]:
    """As many in local memory as in the matrix, and there a pitch for each: the C-model aborts where that of
    the last goes beyond the lane, though no item does.
    """
    fields, address = instruction.fields, local_address(instruction.address(inside), spec) or 0
    axis = "w" if instruction.kind == "transpose" else "h"
    rows, wanted = fields[f"{inside}_nsize"], fields[f"{outside}_{axis}size"]
    if rows != wanted:
        yield f"{inside}_nsize is {rows}, but the matrix has {wanted} rows"
    pitch = fields[f"{inside}_nstride"] * NIBBLES[fields["src_data_format"]] // 2
    end = address % spec.lane_bytes + rows * pitch
    if end > spec.lane_bytes:
        yield f"{rows} rows of {inside}_nstride end at byte {end:#x} of a lane of {spec.lane_bytes:#x}"


def _gather(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """The sizes of the source and of the index say what is written; those of the target say nothing."""
    if instruction.name != "dma_gather":
        return
    fields = instruction.fields
    channels = max(fields["src_csize"], fields["index_csize"])
    if min(fields["src_csize"], fields["index_csize"]) not in (1, channels):
        yield f"src_csize {fields['src_csize']} and index_csize {fields['index_csize']} do not match"
    if fields["dst_csize"] not in (0, channels):
        yield f"dst_csize is {fields['dst_csize']}, but {channels} channels are written"
    if fields["dst_wsize"] not in (0, fields["src_wsize"]):
        yield f"dst_wsize is {fields['dst_wsize']}, but {fields['src_wsize']} items are written"
    if fields["index_hsize"] > 1 and fields["index_hstride"] != 1:
        yield f"index_hstride is {fields['index_hstride']}, expected 1"


FIELD_RULES: tuple[FieldRule, ...] = (
    _codes,
    _sizes,
    _strides,
    _operand_count,
    _lanes_enabled,
    _id_enabled,
    types,
    float_product_bias,
    _steps,
    _broadcast,
    _matrix,
    _gather,
)
