"""The first op that differs, for stages of instructions and for the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import TensorType
from dialects import tensor
from dialects.chip import BufferOp, GlobalOp, Instruction, LocalType
from driver.bisect.dumps import DumpedNet, Stage
from driver.bisect.values import SAME, cosine, where
from passes.emit_bmodel import address_of
from passes.tensor_to_chip.lower import lower_function
from passes.tensor_to_chip.placed import Placed
from runtime_sim.check.contract import moved_of
from runtime_sim.check.waits import find_race
from runtime_sim.interpret.chip import ChipProgram, run_cores
from runtime_sim.interpret.rules import Observer
from runtime_sim.launch.loader import Region
from runtime_sim.launch.queues import CoreProgram, Deadlock

Array = npt.NDArray[Any]


# ---- tensor level to chip ----


def first_placed(net: DumpedNet, before: Stage, stage: Stage) -> str | None:
    """The first value that does not lie in its place after the program, if places are known.

    Places are those that lowering the stage before gives now. They serve if buffers are the same as in the
    dump, one by one.
    """
    if before.level != "tensor":
        return None
    arrays: dict[Value, Array] = {}
    net.run(before, keep_values(arrays))
    programs = net.chip_programs(stage)
    places: dict[Value, tuple[ChipProgram, Placed, Value]] = {}
    for function, dumped, program in zip(before.functions, stage.functions, programs, strict=True):
        found = places_of(net, function, dumped)
        if found is None:
            return None
        places |= {value: (program, *place) for value, place in found.items()}
    run_cores(programs, net.inputs)
    for value, wanted in arrays.items():
        if value in places:
            close = cosine(read(*places[value]), wanted)
            if not close >= SAME:
                op = value.owner
                assert isinstance(op, Op)
                text = f"first op: {op.loc}, cosine {close:.6f} with the stage before"
                return f"{text}, instructions of\n{where(before, op)}"
    return None


def keep_values(arrays: dict[Value, Array]) -> Observer:
    def observe(op: Op, results: Any) -> None:
        arrays.update(zip(op.results, results, strict=True))

    return observe


def places_of(
    net: DumpedNet, function: Function, dumped: Function
) -> dict[Value, tuple[Placed, Value]] | None:
    """Of each value its place, and the dump's buffer for it, where it still lies at the end."""
    clone = function.clone()
    assert isinstance(clone, Function)
    values = {
        new: old
        for ours, theirs in zip(function.block.ops, clone.block.ops, strict=True)
        for old, new in zip(ours.results, theirs.results, strict=True)
        if isinstance(old.type, TensorType)
    }
    lost = set(accumulators(clone))
    placed = lower_function(clone, net.spec).placed
    sides = buffers_of(clone), buffers_of(dumped)
    if [buffer.type for buffer in sides[0]] != [buffer.type for buffer in sides[1]]:
        return None
    buffers = dict(zip(*sides, strict=True))
    return {
        values[value]: (place, buffers[place.buffer])
        for value, place in placed.items()
        if value in values and value not in lost
    }


def buffers_of(function: Function) -> list[Value]:
    """In the order in which they are declared, which passes keep."""
    return [op.results[0] for op in function.block.ops if isinstance(op, BufferOp)]


def accumulators(function: Function) -> Iterator[Value]:
    """Values whose place holds the sum at the end."""
    for op in function.block.ops:
        if isinstance(op, tensor.Accumulates) and op.accumulator is not None:
            yield op.accumulator


def read(program: ChipProgram, place: Placed, buffer: Value) -> Array:
    """The array in a place: item by item over the lanes, or from any lane where all hold the same."""
    local = isinstance(buffer.type, LocalType)
    memory = program.machine.local.bytes if local else program.regions[buffer]
    start = program.placement.address(buffer) if local else 0
    offsets = np.full(place.shape, start + place.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(place.shape, place.strides, strict=True)):
        index = np.arange(size)
        step = index * stride
        if local and axis == place.axis:
            slot, lane = np.divmod(place.lane + index, place.lanes)
            step = slot * stride + lane * (program.machine.local.lane_bytes // place.dtype.bytes)
        shape = [1] * len(place.shape)
        shape[axis] = size
        offsets += (step * place.dtype.bytes).reshape(shape)
    every_byte = offsets[..., None] + np.arange(place.dtype.bytes)
    found: Array = np.ascontiguousarray(memory[every_byte]).view(place.dtype.numpy)[..., 0]
    return found


# ---- chip level to chip ----


class Written:
    """An observer for `ChipProgram.run`: a digest of what each instruction wrote, in order."""

    def __init__(self, functions: Sequence[Function]) -> None:
        buffers = [buffer for function in functions for buffer in buffers_of(function)]
        self.numbers = {buffer: number for number, buffer in enumerate(buffers)}
        self.counts: Counter[Hashable] = Counter()
        self.entries: dict[Hashable, tuple[bytes, Op]] = {}

    def __call__(self, op: Op, array: Array) -> None:
        name = op.opname, str(op.loc), self.numbers[op.operands[0]]
        self.counts[name] += 1
        key = (*name, self.counts[name])
        self.entries[key] = blake2b(array.tobytes(), digest_size=16).digest(), op


def first_instruction(net: DumpedNet, before: Stage, stage: Stage) -> str | None:
    """The first instruction that wrote other bytes than before, if they are the same ones.

    Passes move instructions, so the second `ar` of a place into a buffer is compared with the second one
    there before.
    """
    old, new = Written(before.functions), Written(stage.functions)
    net.run(before, old)
    net.run(stage, new)
    if old.counts != new.counts:
        return None
    for key, (digest, op) in new.entries.items():
        if old.entries[key][0] != digest:
            return f"first op: {op.loc}, writes other bytes than in the stage before\n{where(stage, op)}"
    return None


# ---- chip level to file ----


def differs_in_file(net: DumpedNet, last: Stage) -> str:
    """What of the file is not as the last dump says: an instruction, a weight, or the order."""
    return (
        other_instruction(net, last)
        or other_weight(net, last)
        or unordered(net)
        or "its instructions and weights are those of the dump, and waits order them"
    )


def other_instruction(net: DumpedNet, last: Stage) -> str | None:
    """The first in the order of the dump whose fields differ, core by core."""
    pairs = zip(net.net.program.cores, net.chip_programs(last), strict=False)  # the others do nothing
    return next(filter(None, (other_of_core(net, last, *pair) for pair in pairs)), None)


def other_of_core(net: DumpedNet, last: Stage, core: CoreProgram, program: ChipProgram) -> str | None:
    queues = {"tiu": iter(core.tiu), "dma": iter(core.dma)}
    for op in program.ops:
        ids = {"cmd_id": op.id} if net.spec.command_ids else {}
        found = next(queues[op.engine], None)
        wanted = program.instruction(op).fields | ids | {"cmd_id_dep": op.wait}
        if found is None or found.kind == "end":
            return f"first op: {op.loc}, missing in the file\n{where(last, op)}"
        if found.fields != wanted:
            return f"first op: {op.loc}, in the file {changes(wanted, found.fields)}\n{where(last, op)}"
    return None


def changes(wanted: dict[str, Any], found: dict[str, int]) -> str:
    """The fields that differ, the first few of them."""
    names = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    text = ", ".join(f"{name} is {found.get(name)} instead of {wanted.get(name)}" for name in names[:3])
    return f"{text} and {len(names) - 3} more" if len(names) > 3 else text


def other_weight(net: DumpedNet, last: Stage) -> str | None:
    """The first region of weights whose bytes are not those that the checkpoint gives."""
    blob = net.net.memories.get(Region.COEFF)
    if blob is None:
        return None
    ops = [op for function in last.functions for op in function.block.ops]
    readers = [op for op in ops if isinstance(op, Instruction)]
    for op in ops:
        if not isinstance(op, GlobalOp) or op.space != "weight" or op.source is None:
            continue
        start = address_of(op.buffer) - net.spec.coeff_base
        wanted = np.ascontiguousarray(net.materializer.bytes_of(op.source)).reshape(-1).view(np.uint8)
        wrong = np.flatnonzero(blob[start : start + wanted.size] != wanted)
        if wrong.size:
            reader = next((each for each in readers if op.buffer in each.operands), op)
            text = f"first op: {reader.loc}, reads weights of which {wrong.size} bytes are others in the file"
            return f"{text}, from byte {start + int(wrong[0])}\n{where(last, op)}"
    return None


def unordered(net: DumpedNet) -> str | None:
    try:
        program = net.net.program
        race = find_race(program.cores, net.spec, moved_of(program))
    except Deadlock as deadlock:
        return f"the program never ends: {deadlock}"
    return None if race is None else str(race)
