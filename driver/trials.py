"""What a function would take if it were compiled in some way: a trial is compiled to its end, unverified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.ir.module import Function, discard, walk
from compiler.target.attribute import target_of
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import token_count
from driver.pipelines import Effort, lowering, placing
from driver.price import Price, price_of
from driver.sample import Sample, SectionSample, Some, sample_of
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
        sample = sample_of(module.function(name), effort, target_of(module))
        programs = []
        try:
            for some in sample.programs if sample else [Some()]:
                pipeline = lowering(ByFunction(effort), some.runs, some.sections)
                programs.append(self.run_passes(module, pipeline))
            yield Trial(name, programs, sample, self.run_passes)
        finally:
            for program in programs:
                discard(program)


@dataclass(frozen=True)
class Trial:
    """A function as instructions in program order: all of it, or the programs of a sample."""

    name: str
    programs: Sequence[ModuleOp]
    sample: Sample | SectionSample | None
    run_passes: RunPasses

    @property
    def op_count(self) -> int:
        return sum(len(program.function(self.name).block.ops) for program in self.programs)

    @property
    def is_whole(self) -> bool:
        """Sections that stand for others of their kind need as much room as these."""
        return not isinstance(self.sample, Sample)

    def price(self, effort: Effort) -> Price:
        """With the loads ahead, addresses and waits of this effort; raises DoesNotFit."""
        prices = [self.placed(program, effort) for program in self.programs]
        return self.sample.price(*prices) if self.sample else prices[0]

    def placed(self, program: ModuleOp, effort: Effort) -> Price:
        finished = self.run_passes(program, placing(ByFunction(effort)))
        try:
            return price_of(finished.function(self.name))
        finally:
            discard(finished)


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
    made.attributes = module.attributes
    return made


def looked_up(function: Function) -> set[str]:
    """The weights that rows are picked from by ids."""
    tables = [op.table.defining(llm.WeightOp) for op in walk(function) if isinstance(op, llm.EmbeddingOp)]
    return {table.name for table in tables if table is not None}
