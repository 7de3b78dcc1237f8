"""What a file must satisfy so that Sophgo's runtime can run it, checked without running it.

Problems come back as sentences. The further rules of chat programs are in `client_rules`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from compiler.bmodel import AddrMode, Coeff, TensorInfo
from compiler.diagnostics import CompileError, UserError
from compiler.progress import track
from compiler.target.spec import ChipSpec
from runtime_sim.check.cascades import cascade_problems
from runtime_sim.check.client_rules import model_problems
from runtime_sim.check.hardware import first_problems, hardware_problems
from runtime_sim.check.launches import launch_problems
from runtime_sim.check.ranges import Ranges, ranges_on
from runtime_sim.check.waits import Moved, prove_waits
from runtime_sim.launch.loader import Program, Region, StageProgram, stage_names
from runtime_sim.launch.queues import CoreProgram


@dataclass(frozen=True)
class Transfer:
    """A range of DDR, bytes [start, end), that a DMA instruction reads or writes."""

    core: int
    number: int  # of the instruction on its queue
    write: bool
    start: int
    end: int

    def meets(self, start: int, end: int) -> bool:
        return self.start < end and start < self.end

    def __str__(self) -> str:
        return (f"core {self.core} " if self.core else "") + f"dma {self.number}"


def check_file(program: Program, hashes: bool = True) -> list[str]:
    """All problems of a file, net by net; empty when it is sound. `hashes` reads all weights."""
    checker = StageChecker(program.spec)
    problems: list[str] = []
    launched: list[StageProgram] = []
    for net in track(program.bmodel.nets, "check", " nets"):
        stages: list[StageProgram] = []
        for name in stage_names(net):
            try:
                stages.append(program.stage(name))
            except UserError as error:
                problems.append(str(error))
        for stage in stages:
            problems += [f"net {stage.name}: {problem}" for problem in checker.problems(stage, stages)]
        launched += stages
    problems += launch_problems(launched)
    if hashes:
        problems += _hash_problems(program)
    problems += cascade_problems(program.bmodel)
    return problems + list(model_problems(program))


class StageChecker:
    """Rules of one stage. What depends on the streams alone is worked out once for equal streams."""

    def __init__(self, spec: ChipSpec) -> None:
        self.spec = spec
        self._order: dict[tuple[Hashable, ...], list[str]] = {}
        self._transfers: dict[tuple[int, int], list[Transfer]] = {}
        self._hardware: dict[int, list[str]] = {}
        self._ranges = ranges_on(spec)
        self._first_problems = first_problems(spec, self._ranges)

    def problems(self, stage: StageProgram, stages: Sequence[StageProgram]) -> Iterator[str]:
        transfers = [
            transfer for index, core in enumerate(stage.cores) for transfer in self._transfers_of(index, core)
        ]
        yield from _placement_problems(stage)
        yield from _transfer_problems(stage, transfers)
        yield from _input_problems(stage, stages, transfers)
        yield from _output_problems(stage, transfers)
        yield from self._order_problems(stage)
        for index, core in enumerate(stage.cores):
            prefix = f"core {index} " if index else ""
            yield from (prefix + problem for problem in self._hardware_of(core))

    def _transfers_of(self, index: int, core: CoreProgram) -> list[Transfer]:
        key = index, id(core)
        if key not in self._transfers:
            self._transfers[key] = list(_transfers(index, core, self._ranges))
        return self._transfers[key]

    def _hardware_of(self, core: CoreProgram) -> list[str]:
        if id(core) not in self._hardware:
            self._hardware[id(core)] = list(hardware_problems(core, self.spec, self._first_problems))
        return self._hardware[id(core)]

    def _order_problems(self, stage: StageProgram) -> list[str]:
        cores, moved = stage.cores, moved_of(stage)
        key = (*map(id, cores), moved)
        if key not in self._order:
            self._order[key] = list(_id_problems(cores)) if self.spec.command_ids else []
            try:
                prove_waits(cores, self.spec, moved, self._ranges)
            except CompileError as error:
                self._order[key].append(error.message)
        return self._order[key]


def moved_of(stage: StageProgram) -> Moved:
    """What the runtime copies at a launch."""

    def ranges(tensors: Sequence[TensorInfo]) -> tuple[tuple[int, int], ...]:
        starts = ((stage.dma_address(tensor), tensor.size) for tensor in tensors)
        return tuple((start, start + size) for start, size in starts)

    return Moved(ranges(stage.stage.inputs), ranges(stage.stage.outputs))


def _transfers(index: int, core: CoreProgram, ranges: Ranges) -> Iterator[Transfer]:
    for number, instruction in enumerate(core.dma, 1):
        for access in ranges(instruction):
            if not access.is_local:
                for box in access.boxes:
                    yield Transfer(index, number, access.write, box.start, box.end)


def _id_problems(cores: Sequence[CoreProgram]) -> Iterator[str]:
    """Where commands carry their number it must count from 1, or the chip waits for ever."""
    for core in cores:
        for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
            for number, instruction in enumerate(stream, 1):
                if instruction.id != number:
                    yield f"{engine} {number} carries the id {instruction.id}"
                    break


def _placement_problems(stage: StageProgram) -> Iterator[str]:
    """Inputs and outputs lie in the net's memories, each by itself; only input 0 and output 0 may be one."""
    tensors = [*stage.stage.inputs, *stage.stage.outputs]
    for tensor in tensors:
        address = stage.dma_address(tensor)
        span = stage.span_of(address)
        if span is None or address + tensor.size > span.end:
            yield f"{tensor.name} is at {tensor.address:#x}, outside the net's memories"
        elif span.region is Region.COEFF:
            yield f"{tensor.name} lies among the weights"
    for index, first in enumerate(tensors):
        for second in tensors[index + 1 :]:
            is_one = _is_in_place(stage, first, second) or _is_same_hidden(first, second)
            if _overlap(first, second) and not is_one:
                yield f"{first.name} and {second.name} overlap"


def _overlap(first: TensorInfo, second: TensorInfo) -> bool:
    starts_before = first.address < second.address + second.size
    return starts_before and second.address < first.address + first.size


def _is_in_place(stage: StageProgram, first: TensorInfo, second: TensorInfo) -> bool:
    is_pair = any(first is each for each in stage.stage.inputs[:1])
    is_pair &= any(second is each for each in stage.stage.outputs[:1])
    return is_pair and (first.address, first.size) == (second.address, second.size)


def _is_same_hidden(first: TensorInfo, second: TensorInfo) -> bool:
    """Whether what goes to other steps does so under two names."""
    both = first.hidden and second.hidden
    return both and (first.address, first.dtype, first.shape) == (second.address, second.dtype, second.shape)


def _transfer_problems(stage: StageProgram, transfers: Sequence[Transfer]) -> Iterator[str]:
    """Every DDR address is inside one memory, and nothing is written among the weights."""
    for transfer in transfers:
        span = stage.span_of(transfer.start)
        place = f"bytes {transfer.start:#x} to {transfer.end:#x}"
        if span is None or transfer.end > span.end:
            yield f"{transfer} goes to {place}, outside the net's memories"
            return
        if transfer.write and span.region is Region.COEFF:
            yield f"{transfer} writes to {place}, among the weights"
            return


def _input_problems(
    stage: StageProgram, stages: Sequence[StageProgram], transfers: Sequence[Transfer]
) -> Iterator[str]:
    """Inputs are not written, save input 0: clients launch again with what is there, caches above all.

    In memory of the net's own neither are those of its other stages, which have them in the same one.
    """
    for owner in stages if stage.mode is AddrMode.IO_ALONE else [stage]:
        whose = "its input" if owner is stage else f"the input of {owner.name}"
        moved = stage.stage.io_address - owner.stage.io_address
        for tensor in owner.stage.inputs[1:]:
            start = owner.dma_address(tensor) + moved
            for transfer in transfers:
                if transfer.write and transfer.meets(start, start + tensor.size):
                    yield f"{transfer} writes to {whose} {tensor.name}"
                    break


def _output_problems(stage: StageProgram, transfers: Sequence[Transfer]) -> Iterator[str]:
    """Every byte of every output is written."""
    written = sorted((transfer.start, transfer.end) for transfer in transfers if transfer.write)
    for tensor in stage.stage.outputs:
        start = reached = stage.dma_address(tensor)
        for first, end in written:
            if first <= reached:
                reached = max(reached, end)
        if reached < start + tensor.size:
            yield f"byte {reached - start} of its output {tensor.name} is never written"


def _hash_problems(program: Program) -> list[str]:
    """The runtime takes blobs of equal check code and size for one, so the code must be the content's."""
    problems, known = [], set()
    for net in track(program.bmodel.nets, "check the weights of", " nets"):
        for stage in net.stages:
            if stage.coeff and stage.coeff.blob.key not in known:
                known.add(stage.coeff.blob.key)
                if _sha256(stage.coeff) != stage.coeff.check_code:
                    problems.append(f"net {net.name}: the check code of its weights is not their sha256")
    return problems


def _sha256(coeff: Coeff) -> bytes:
    digest = hashlib.sha256()
    for chunk in coeff.blob.chunks():
        digest.update(chunk)
    return digest.digest()
