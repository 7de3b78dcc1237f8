"""What a function would take if it were compiled in some way: a trial is compiled to its end, unverified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.ir.module import Function, discard, walk
from compiler.target.attribute import target_of
from compiler.target.timing import estimate
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import token_count
from driver.pipelines import Effort, lowering, placing
from driver.search import Price
from passes.emit_bmodel import decoded
from passes.options import ByFunction

RunPasses = Callable[[ModuleOp, str], ModuleOp]  # a copy of a module after a pipeline


@dataclass(frozen=True)
class Trials:
    """Compiles functions of a fused module one by one."""

    fused: ModuleOp
    run_passes: RunPasses

    @contextmanager
    def lower(self, name: str, effort: Effort) -> Iterator[Trial]:
        module = alone(self.fused, name)
        with discarded(self.run_passes(module, lowering(ByFunction(effort)))) as lowered:
            yield Trial(name, lowered, self.run_passes)


@dataclass(frozen=True)
class Trial:
    """A function as instructions in program order."""

    name: str
    lowered: ModuleOp
    run_passes: RunPasses

    @property
    def op_count(self) -> int:
        return len(self.lowered.function(self.name).block.ops)

    def price(self, effort: Effort) -> Price:
        """With the loads ahead, addresses and waits of this effort; raises DoesNotFit."""
        with discarded(self.run_passes(self.lowered, placing(ByFunction(effort)))) as placed:
            return price_of(placed.function(self.name))


@contextmanager
def discarded(module: ModuleOp) -> Iterator[ModuleOp]:
    """The module, taken apart in the end."""
    try:
        yield module
    finally:
        discard(module)


def price_of(function: Function) -> Price:
    """Of a finished program."""
    spec = target_of(function)
    tiu, dma = decoded(function).values()
    plain, cautious = (estimate(tiu, dma, spec, cautious=choice).total for choice in (False, True))
    return Price(plain, cautious, len(tiu) + len(dma))


def alone(module: ModuleOp, name: str) -> ModuleOp:
    """A module with one of the functions, and with the smallest of those that look up rows of the weights
    that it reads otherwise: how these lie depends on it.
    """
    function = module.function(name)
    read = {op.name for op in walk(function) if isinstance(op, llm.WeightOp)}
    if not looked_up(function):
        others = [other for other in module.functions() if looked_up(other) & read]
        functions = [function, *sorted(others, key=token_count)[:1]]
    else:
        functions = [function]
    made = ModuleOp.of(*(each.clone() for each in functions))  # type: ignore[arg-type]
    made.attributes |= module.attributes
    return made


def looked_up(function: Function) -> set[str]:
    """The weights that rows are picked from by ids."""
    tables = [op.table.defining(llm.WeightOp) for op in walk(function) if isinstance(op, llm.EmbeddingOp)]
    return {table.name for table in tables if table is not None}
