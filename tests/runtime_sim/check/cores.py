"""A net for the two cores of BM1688, written by hand, in which every wait is needed.

    output y [2, 32, 16] = (a[0] + b[0]) + (a[1] + b[1]), twice

Each core adds its half of the inputs a and b, gives the sum to the other core, adds the other's, and stores
the result as its half of y. They meet three times: before core 1 reads the inputs, which the runtime writes
for core 0 alone; when both have given their sums; and when core 0 may say that y is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np

from compiler.bmodel import AddrMode, BModel, CommandStreams, Net, Stage, TensorInfo
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import Instruction, isa_for
from runtime_sim.launch.queues import CoreProgram
from tests.runtime_sim.check.programs import Assembler

BF16 = ml_dtypes.bfloat16
SHAPE = (2, 32, 16)  # of each tensor
HALF, HALF_BYTES = (1, 32, 1, 16), 2 * 32 * 16
A, B, Y, SUMS = (BM1688.neuron_base + 0x1000 * i for i in range(4))
CTX_BYTES = 0x4000
MESSAGES = (30, 31, 32)  # the last is not the first, by which the next launch begins


def core_program(core: int, messages: Sequence[int] = MESSAGES) -> Assembler:
    asm, own, other = Assembler(BM1688), core * HALF_BYTES, (1 - core) * HALF_BYTES

    def meet(message: int, after: int = 0) -> None:
        for kind in ("send", "wait"):
            asm.add("dma_sys", kind, after if kind == "send" else 0, constant_value=2 << 8 | message)

    meet(messages[0])
    asm.copy(A + own, 0x0000, HALF)
    loaded = asm.copy(B + own, 0x2000, HALF)
    added = asm.ar("add", 0x4000, 0x0000, 0x2000, HALF, after=loaded)
    asm.copy(0x4000, SUMS + own, HALF, after=added)
    meet(messages[1])
    loaded = asm.copy(SUMS + other, 0x6000, HALF)
    added = asm.ar("add", 0x8000, 0x4000, 0x6000, HALF, after=loaded)
    asm.copy(0x8000, Y + own, HALF, after=added)
    meet(messages[2])
    return asm


def sum_model(messages: Sequence[int] = MESSAGES) -> BModel:
    return model_of([core_program(core, messages).streams() for core in (0, 1)])


def model_of(streams: Sequence[CommandStreams]) -> BModel:
    a, b, y = (TensorInfo(name, "bf16", at, SHAPE) for name, at in (("a", A), ("b", B), ("y", Y)))
    stage = Stage([a, b], [y], BM1688.neuron_base, CTX_BYTES, list(streams))
    return BModel(BM1688.chip, [Net("sum", AddrMode.BASIC, [stage])])


def cores_of(model: BModel) -> list[CoreProgram]:
    isa = isa_for(BM1688)
    streams = model.nets[0].stages[0].cores
    return [CoreProgram(isa.decode("tiu", each.tiu), isa.decode("dma", each.dma)) for each in streams]


def wanted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    halves = (a.astype(np.float32) + b.astype(np.float32)).astype(BF16).astype(np.float32)
    return np.broadcast_to((halves[0] + halves[1]).astype(BF16), SHAPE)


def mutants(cores: Sequence[CoreProgram]) -> Iterator[tuple[str, list[CoreProgram]]]:
    """Without each of the sends, the waits, and what one engine waits for of the other."""
    for core, program in enumerate(cores):
        for engine in ("tiu", "dma"):
            for number, old in enumerate(getattr(program, engine), 1):
                where = f"core {core} {engine} {number}"
                if old.kind.removesuffix("_msg") in ("send", "wait"):
                    yield f"{where} {old.kind}", changed(cores, core, engine, number, replace(old, kind="nop"))
                if old.fields["cmd_id_dep"]:
                    free = replace(old, fields=old.fields | {"cmd_id_dep": 0})
                    yield f"{where} waits for nothing", changed(cores, core, engine, number, free)


def without_meeting(core: CoreProgram, index: int) -> CoreProgram:
    """The index-th send and wait become nops; dependencies between the engines stay."""
    seen = {"send": 0, "wait": 0}
    stream = []
    for instruction in core.dma:
        if instruction.kind in seen:
            seen[instruction.kind] += 1
            if seen[instruction.kind] == index + 1:
                instruction = replace(instruction, kind="nop")
        stream.append(instruction)
    return replace(core, dma=stream)


def changed(
    cores: Sequence[CoreProgram], core: int, engine: str, number: int, new: Instruction
) -> list[CoreProgram]:
    """The programs with another instruction in one place."""
    stream = list(getattr(cores[core], engine))
    stream[number - 1] = new
    return [
        replace(program, **{engine: stream}) if index == core else program
        for index, program in enumerate(cores)
    ]
