"""What the programs of a net take."""

from __future__ import annotations

from dataclasses import dataclass
from math import log as logarithm

from compiler.ir.core import Value
from compiler.ir.module import Function
from compiler.target import isa
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from compiler.target.timing import Queues, estimate_cores, total
from dialects.chip import DmaOp, GlobalType, Instruction, Placement
from passes.chip.forms import PerForm
from passes.emit_bmodel import instructions_of


@dataclass(frozen=True)
class Price:
    """Cycles by both estimates, and commands."""

    plain: float
    cautious: float
    commands: float

    @property
    def cost(self) -> float:
        """The logarithm of the cycles, in the mean of both estimates."""
        return (logarithm(max(1, self.plain)) + logarithm(max(1, self.cautious))) / 2

    def __add__(self, other: Price) -> Price:
        return Price(
            self.plain + other.plain, self.cautious + other.cautious, self.commands + other.commands
        )

    def __mul__(self, times: float) -> Price:
        return Price(self.plain * times, self.cautious * times, self.commands * times)

    def __sub__(self, other: Price) -> Price:
        return self + other * -1


def price_of(*cores: Function) -> Price:
    """Of the finished programs of the cores of a net, as `bmodel_tool.py timing` has it."""
    spec = target_of(cores[0])
    queues = [queues_of(core) for core in cores]
    plain, cautious = (total(estimate_cores(queues, spec, cautious=choice)) for choice in (False, True))
    return Price(plain, cautious, sum(len(core.tiu) + len(core.dma) for core in queues))


def queues_of(core: Function) -> Queues:
    """Instructions that take as long as those of the program, and wait for each other as they do."""
    body = PerForm(body_of, target_of(core))
    found: dict[str, list[isa.Instruction]] = {"tiu": [], "dma": []}
    for op in instructions_of(core):
        found[op.engine].append(body(op).placed((op.id, op.wait)))
    return Queues(**found)


def body_of(op: Instruction, spec: ChipSpec) -> isa.Instruction:
    """An instruction of the form, whose buffers lie apart: where they do costs nothing.

    A command is known by whether it works on local memory, so that its buffers are all in there.
    """
    apart = 0 if isinstance(op, DmaOp) else spec.local_bytes

    def address(buffer: Value) -> int:
        is_global = isinstance(buffer.type, GlobalType)
        return spec.ddr_base if is_global else apart * op.operands.index(buffer)

    fields = op.fields(Placement(spec, address, spec.lane_bytes))
    return isa.isa_for(spec).complete(op.family, op.isa_kind(), fields)
