"""What the timing model says of every net of a file, and of the whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.client_nets import BLOCK, BLOCK_CACHE, EMBEDDING, net_name
from compiler.diagnostics import UserError
from compiler.progress import track
from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from compiler.target.timing import ModelTiming, NetTiming, measure
from runtime_sim.launch.loader import Program, StageProgram, stage_names
from runtime_sim.launch.queues import CoreProgram


@dataclass
class Group:
    """Nets with the same program, under the figures of the first."""

    timing: NetTiming
    stage: StageProgram
    names: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        if len(self.names) == 1:
            return self.names[0]
        return f"{self.names[0]} .. {self.names[-1]} ({len(self.names)} nets)"


@dataclass
class Measured:
    """All programs of a file."""

    spec: ChipSpec
    groups: list[Group]
    model: ModelTiming
    incomplete: dict[str, str]  # nets that are not measured or only in part, and why
    tokens: int  # of a prefill; 0 if unknown
    histories: list[int]  # tokens that each stage of decode holds; 0 if unknown

    @property
    def speeds(self) -> list[dict[str, float]]:
        """Tokens per second of each stage of decode."""
        return [self.model.speed(stage) for stage in range(len(self.histories))]

    def as_dict(self) -> dict[str, Any]:
        result = {
            "chip": self.spec.chip,
            "mhz": self.spec.mhz,
            "nets": [timing.as_dict() for timing in self.model.nets.values()],
            "incomplete": self.incomplete,
        }
        if self.model.is_whole:
            speeds = {"tokens_per_second_by_history": dict(zip(self.histories, self.speeds, strict=True))}
            result["model"] = {"prefill_tokens": self.tokens, **self.model.as_dict(), **speeds}
        return result


def measure_file(program: Program, only: str | None = None) -> Measured:
    """Every net of a file, or only one; equal programs are measured once."""
    names = [only] if only else [name for net in program.bmodel.nets for name in stage_names(net)]
    groups: dict[tuple[int, ...], Group] = {}
    timings: dict[str, NetTiming] = {}
    incomplete: dict[str, str] = {}
    for name in track(names, "measure", " nets"):
        try:
            stage = program.stage(name)
        except UserError as error:
            incomplete[name] = str(error)
            if not (parts := program.parts(name)):
                continue
            stage = in_sequence(parts)
        key = tuple(id(core) for core in stage.cores)
        if key not in groups:
            groups[key] = Group(measure(name, stage.cores, program.spec), stage)
        groups[key].names.append(name)
        timings[name] = dataclasses.replace(groups[key].timing, net=name)
    model = ModelTiming(timings, program.spec.mhz)
    tokens, histories = _prompt_length(program), _histories(program)
    return Measured(program.spec, list(groups.values()), model, incomplete, tokens, histories)


def in_sequence(parts: Sequence[StageProgram]) -> StageProgram:
    """Programs that run one after the other, as one: each waits for all of the one before."""
    cores = [CoreProgram([], []) for _ in parts[0].cores]
    for part in parts:
        cores = [_appended(first, second) for first, second in zip(cores, part.cores, strict=True)]
    return dataclasses.replace(parts[0], cores=cores)


def _appended(first: CoreProgram, second: CoreProgram) -> CoreProgram:
    return CoreProgram(
        [*first.tiu, *(_later(instruction, len(first.dma)) for instruction in second.tiu)],
        [*first.dma, *(_later(instruction, len(first.tiu)) for instruction in second.dma)],
    )


def _later(instruction: Instruction, others: int) -> Instruction:
    """Waiting for so many more instructions of the other engine."""
    wait = instruction.wait + others
    return dataclasses.replace(instruction, fields=instruction.fields | {"cmd_id_dep": wait})


def _prompt_length(program: Program) -> int:
    """The tokens of a prefill: the rows of the embedding, or of the first block."""
    for name in (EMBEDDING, net_name(BLOCK, 0)):
        if program.bmodel.has_net(name):
            shapes = [tensor.shape for tensor in program.bmodel.net(name).stages[0].inputs[:1]]
            return int(shapes[0][1]) if shapes and len(shapes[0]) > 1 else 0
    return 0


def _histories(program: Program) -> list[int]:
    """Tokens that the stages of decode hold."""
    name = net_name(BLOCK_CACHE, 0)
    stages = program.bmodel.net(name).stages if program.bmodel.has_net(name) else []
    shapes = [stage.inputs[3].shape for stage in stages if len(stage.inputs) > 3]
    return [shape[1] for shape in shapes if len(shape) > 1] or [0]
