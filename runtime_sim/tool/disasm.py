"""`disasm`: the instructions of a net in words."""

from __future__ import annotations

import struct
from argparse import Namespace
from collections.abc import Iterator

from compiler.bmodel import read_bmodel
from compiler.diagnostics import CompileError
from compiler.target.isa import PRECISION, STRIDED, Instruction
from compiler.target.messages import message_of
from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges import accesses
from runtime_sim.launch.loader import Program, Span, StageProgram
from runtime_sim.launch.orders import alternating
from runtime_sim.launch.queues import Deadlock, Step, run_order

_PRECISION_NAMES = {code: name for name, code in PRECISION.items()}
_LAYOUTS = {0: "", 1: " compact", 2: " per channel"}
_OPERANDS = ("res0", "res1", "opd0", "opd1", "opd2", "opd3")
_PARTS = (
    "_addr",
    "_prec",
    "_str",
    "_const",
    "_sign",
    *(f"_{a}" for a in "nchw"),
    *(f"_{a}_str" for a in "nchw"),
)
_SIDE_PARTS = (
    "_start_addr_l32",
    "_start_addr_h8",
    *(f"_{a}{what}" for a in "nchw" for what in ("size", "stride")),
)
_HIDDEN = {"cmd_id", "cmd_id_dep", "cmd_id_en", "src_data_format", "localmem_mask_l32", "localmem_mask_h32"}


def run(arguments: Namespace) -> int:
    stage = Program(read_bmodel(arguments.file)).stage(arguments.net)
    try:
        for step in run_order(stage.cores, alternating()):
            if arguments.engine in (None, step.engine):
                print(line(step, stage))
    except Deadlock as deadlock:
        raise CompileError(f"net {arguments.net} never ends: {deadlock}") from None
    return 0


def line(step: Step, stage: StageProgram) -> str:
    """`tiu    12  after dma 5   ar.add  res0 ...`"""
    instruction = step.instruction
    other = "dma" if step.engine == "tiu" else "tiu"
    dep = instruction.wait
    core = f"{step.core} " if len(stage.cores) > 1 else ""
    wait = f"after {other} {dep}" if dep else ""
    name = f"{instruction.name}.{instruction.kind}"
    text = "  ".join(operands(instruction, stage))
    return f"{core}{step.engine} {step.number:5}  {wait:14} {name:20} {text}".rstrip()


def operands(instruction: Instruction, stage: StageProgram) -> Iterator[str]:
    """Each operand in words, then the fields that belong to none."""
    if message := message_of(instruction):
        return iter([str(message)])
    return _tiu(instruction, stage.spec) if instruction.engine == "tiu" else _dma(instruction, stage)


def _tiu(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields, used = instruction.fields, set(_HIDDEN)
    touched = {access.operand for access in accesses(instruction, spec)}
    for operand in _OPERANDS:
        used |= {operand + part for part in _PARTS}
        if f"{operand}_addr" in fields and (operand in touched or _is_constant(fields, operand)):
            yield f"{operand} {_tiu_operand(fields, operand, spec)}"
    if "opd2_n_str" in fields:  # a rounding mode or a count of iterations, not a stride
        used.discard("opd2_n_str")
    yield from _rest(fields, used)


def _is_constant(fields: dict[str, int], operand: str) -> bool:
    """Whether the operand is there, as a value in the instruction."""
    count = fields.get("tsk_opd_num", 4)
    return bool(fields.get(f"{operand}_const")) and int(operand[3]) < count


def _tiu_operand(fields: dict[str, int], operand: str, spec: ChipSpec) -> str:
    address, precision = fields[f"{operand}_addr"], fields.get(f"{operand}_prec")
    dtype = _PRECISION_NAMES.get(precision, "") if precision is not None else ""
    if fields.get(f"{operand}_const"):
        return f"= {_constant(address, dtype)}"
    sizes = [fields[f"{operand}_{axis}"] for axis in "nchw" if f"{operand}_{axis}" in fields]
    lane, offset = divmod(address, spec.lane_bytes)
    layout = _LAYOUTS.get(fields.get(f"{operand}_str", 0), "")
    if fields.get(f"{operand}_str") == STRIDED:
        layout = " strides " + ",".join(str(fields.get(f"{operand}_{axis}_str", 0)) for axis in "nchw")
    return f"{dtype}{sizes or ''}@{f'lane {lane} ' if lane else ''}{offset:#x}{layout}"


def _constant(bits: int, dtype: str) -> str:
    """The value of a constant operand, given as bits in the operand's type."""
    if dtype == "f32":
        return f"{struct.unpack('<f', struct.pack('<I', bits))[0]:g}"
    if dtype == "bf16":
        return f"{struct.unpack('<f', struct.pack('<I', (bits & 0xFFFF) << 16))[0]:g}"
    if dtype == "f16":
        return f"{struct.unpack('<e', struct.pack('<H', bits & 0xFFFF))[0]:g}"
    return f"{bits:#x}"


def _dma(instruction: Instruction, stage: StageProgram) -> Iterator[str]:
    fields, used = instruction.fields, set(_HIDDEN)
    dtype = _PRECISION_NAMES.get(fields.get("src_data_format", -1), "")
    for side in ("src", "dst", "index", "mask"):
        if f"{side}_start_addr_l32" not in fields:
            continue
        used |= {side + part for part in _SIDE_PARTS}
        if not (side == "src" and fields.get("fill_constant_en")):
            yield f"{side} {dtype if side == 'src' else ''}{_dma_operand(instruction, side, stage)}"
    yield from _rest(fields, used)


def _dma_operand(instruction: Instruction, side: str, stage: StageProgram) -> str:
    fields = instruction.fields
    sizes = [fields.get(f"{side}_{axis}size", 1) for axis in "nchw"]
    strides = [fields.get(f"{side}_{axis}stride", 0) for axis in "nchw"]
    shape = f"{sizes}" if any(sizes) else ""
    steps = f" strides {','.join(map(str, strides))}" if any(strides) else ""
    return f"{shape}@{address_text(instruction.address(side), stage)}{steps}"


def address_text(address: int, stage: StageProgram) -> str:
    """Where an address of the DMA lies: local memory, or a region of the net and the offset in it."""
    spec = stage.spec
    local = address - spec.dma_local_base
    if 0 <= local < spec.local_bytes:
        lane, offset = divmod(local, spec.lane_bytes)
        return f"{f'lane {lane} ' if lane else ''}{offset:#x}"
    span = stage.span_of(address)
    return f"{_short(span)}+{address - span.start:#x}" if span else f"{address:#x}"


def _short(span: Span) -> str:
    return span.region.name.lower()


def _rest(fields: dict[str, int], used: set[str]) -> Iterator[str]:
    yield from (f"{name}={value}" for name, value in fields.items() if value and name not in used)
