"""A bmodel to runnable programs: streams decoded, and the memory that each net sees laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from compiler.bmodel import AddrMode, BModel, CommandStreams, Net, Stage, TensorInfo
from compiler.bmodel.container import tensor_bytes
from compiler.client_nets import stage_name
from compiler.diagnostics import UserError
from compiler.target.chips import chip_of_file
from compiler.target.isa import Bodies, Instruction, isa_for
from compiler.target.layout import Engine
from compiler.target.spec import ChipSpec
from runtime_sim.launch.queues import CoreProgram

DEVICE_BYTES = 64 << 30  # of memory; boards have 16 GB


class Region(Enum):
    """The parts of a net's virtual DDR."""

    COEFF = "coefficients"
    IO = "inputs and outputs"
    NEURON = "scratch memory"


@dataclass(frozen=True)
class Span:
    """A region as the DMA addresses it: bytes [start, end)."""

    region: Region
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


@dataclass(frozen=True, eq=False)
class StageProgram:
    """One stage of a net, ready to run or to check."""

    name: str  # see `stage_names`
    mode: AddrMode
    stage: Stage
    cores: Sequence[CoreProgram]
    spans: Sequence[Span]
    spec: ChipSpec

    def span(self, region: Region) -> Span | None:
        return next((span for span in self.spans if span.region is region), None)

    def dma_address(self, tensor: TensorInfo) -> int:
        """The address of an input or output as the DMA sees it."""
        io = self.span(Region.IO)
        if io and self.mode is AddrMode.IO_ALONE:
            return tensor.address | self.spec.io_tag
        return tensor.address

    def span_of(self, address: int) -> Span | None:
        return next((span for span in self.spans if address in span), None)


class Program:
    """All nets of a file. Streams are decoded when first asked for, equal ones once."""

    def __init__(self, bmodel: BModel) -> None:
        self.bmodel = bmodel
        self.spec = chip_of_file(bmodel.chip)
        check_memory(bmodel)
        self._isa = isa_for(self.spec)
        self._decoded: dict[tuple[bytes, bytes], CoreProgram] = {}
        self._bodies: Bodies = {}
        self._stages: dict[str, StageProgram] = {}

    def find(self, name: str) -> tuple[Net, Stage]:
        """A stage by its name, see `stage_names`; UserError when there is none."""
        for net in self.bmodel.nets:
            if name.startswith(net.name) and name in (names := stage_names(net)):
                return net, net.stages[names.index(name)]
        raise UserError(f"there is no net '{name}'; there are {name_list(self.bmodel)}")

    def stage(self, name: str) -> StageProgram:
        if name not in self._stages:
            self._stages[name] = self._load(name)
        return self._stages[name]

    def parts(self, name: str) -> list[StageProgram]:
        """What the engines run of a net that cannot be run here, to be looked at."""
        net, stage = self.find(name)
        parts = [[self._decode(core, name) for core in part] for part in stage.parts]
        spans = _spans(stage, self.spec)
        return [StageProgram(name, net.addr_mode, stage, part, spans, self.spec) for part in parts]

    def _load(self, name: str) -> StageProgram:
        net, stage = self.find(name)
        if stage.unsupported:
            raise UserError(f"net {name} cannot be run here: it has {stage.unsupported}")
        if not stage.cores:
            raise UserError(f"net {name} has no instructions")
        check_tensors(name, stage)
        cores = [self._decode(streams, name) for streams in stage.cores]
        return StageProgram(name, net.addr_mode, stage, cores, _spans(stage, self.spec), self.spec)

    def _decode(self, streams: CommandStreams, net: str) -> CoreProgram:
        key = (streams.tiu, streams.dma)
        if key not in self._decoded:
            tiu = self._decode_one("tiu", streams.tiu, streams.tiu_count, net)
            dma = self._decode_one("dma", streams.dma, streams.dma_count, net)
            self._decoded[key] = CoreProgram(tiu, dma)
        return self._decoded[key]

    def _decode_one(self, engine: Engine, data: bytes, count: int, net: str) -> list[Instruction]:
        try:
            instructions = self._isa.decode(engine, data, self._bodies)
        except ValueError as error:
            raise UserError(f"net {net}: {error}") from None
        if len(instructions) != count or not instructions or instructions[-1].kind != "end":
            problem = f"{len(instructions)} {engine} instructions where {count} are announced"
            raise UserError(f"net {net}: {problem}, or no end command")
        return instructions


def stage_names(net: Net) -> list[str]:
    """What the stages of a net are called."""
    return [stage_name(net.name, index) for index in range(len(net.stages))]


def check_memory(bmodel: BModel) -> None:
    """UserError when no device has the memory that the file declares for one."""
    for device in {net.device for net in bmodel.nets}:
        _check_memory([net for net in bmodel.nets if net.device == device])


def _check_memory(nets: Sequence[Net]) -> None:
    scratch = max(stage.ctx_size for net in nets for stage in net.stages)
    own = sum(io_bytes(net) for net in nets)
    if scratch + own > DEVICE_BYTES:
        size = f"{scratch / 1e9:.4g} GB of scratch memory and {own / 1e9:.4g} GB for inputs and outputs"
        raise UserError(f"it asks for {size}; expected at most {DEVICE_BYTES / 1e9:.4g} GB")


def io_bytes(net: Net) -> int:
    """Of the memory that a net has for itself: one for all its stages."""
    return max(stage.io_size for stage in net.stages)


def check_tensors(name: str, stage: Stage) -> None:
    """UserError when an input or output has another size than its shape, or shares its name with another."""
    for tensors in (stage.inputs, stage.outputs):
        for tensor in tensors:
            expected = tensor_bytes(tensor.dtype, tensor.shape)
            if tensor.size != expected:
                shape = f"{tensor.dtype}{list(tensor.shape)} is {expected}"
                raise UserError(f"net {name}: {tensor.name} has {tensor.size} bytes, {shape}")
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise UserError(f"net {name}: two inputs or two outputs have the same name")


def name_list(bmodel: BModel) -> str:
    """The names of the nets, shortened in the middle when there are many."""
    names = [net.name for net in bmodel.nets]
    return ", ".join(names if len(names) <= 8 else [*names[:5], "...", *names[-2:]])


def _spans(stage: Stage, spec: ChipSpec) -> list[Span]:
    spans = [Span(Region.NEURON, stage.ctx_address, stage.ctx_size)]
    if stage.io_size:
        spans.append(Span(Region.IO, stage.io_address | spec.io_tag, stage.io_size))
    if stage.coeff:
        spans.append(Span(Region.COEFF, stage.coeff.address, stage.coeff.size))
    return spans
