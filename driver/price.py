"""What the programs of a net take."""

from __future__ import annotations

from dataclasses import dataclass
from math import log as logarithm

from compiler.ir.module import Function
from compiler.target.attribute import target_of
from compiler.target.timing import Queues, estimate_cores, total
from passes.emit_bmodel import decoded


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
    queues = [Queues(*decoded(core).values()) for core in cores]
    plain, cautious = (total(estimate_cores(queues, spec, cautious=choice)) for choice in (False, True))
    return Price(plain, cautious, sum(len(core.tiu) + len(core.dma) for core in queues))
