"""What a function would take if it were compiled in some way: a trial is compiled to its end, unverified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from compiler.ir.module import Function, discard, walk
from compiler.target.attribute import target_of
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import net_of, token_count
from dialects.weights import view_of_name
from driver.pipelines import Effort, lowering, placing
from driver.price import Price, price_of
from driver.sample import Sample, SectionSample, Some, sample_of
from passes.options import ByFunction

RunPasses = Callable[[ModuleOp, str], ModuleOp]  # a copy of a module after a pipeline


@dataclass(frozen=True)
class Trials:
    """Compiles functions of a fused module one by one, each with those of the other cores of its net: all
    have to fit, and share DDR. They go by the name of the first core's.
    """

    fused: ModuleOp
    run_passes: RunPasses

    def first_cores(self) -> list[Function]:
        return [function for function in self.fused.functions() if not net_of(function).part.core]

    @contextmanager
    def lower(self, name: str, effort: Effort) -> Iterator[Trial]:
        module = alone(self.fused, name)
        sample = sample_of(module.function(name), effort, target_of(module))
        programs = []
        try:
            for some in sample.programs if sample else [Some()]:
                pipeline = lowering(ByFunction(effort), some.runs, some.sections)
                programs.append(self.run_passes(module, pipeline))
            yield Trial([each.sym_name for each in cores_of(module, name)], programs, sample, self.run_passes)
        finally:
            for program in programs:
                discard(program)


@dataclass(frozen=True)
class Trial:
    """A net as instructions in program order: all of it, or the programs of a sample."""

    names: Sequence[str]  # of its cores
    programs: Sequence[ModuleOp]
    sample: Sample | SectionSample | None
    run_passes: RunPasses

    @property
    def op_count(self) -> int:
        return sum(len(each.block.ops) for program in self.programs for each in self.cores(program))

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
            return price_of(*self.cores(finished))
        finally:
            discard(finished)

    def cores(self, program: ModuleOp) -> list[Function]:
        return [*map(program.function, self.names)]


def alone(module: ModuleOp, name: str) -> ModuleOp:
    """A module with one of the functions, for all cores, and with the smallest of those that look up rows of
    the weights that it reads otherwise: how these lie depends on it.
    """
    functions = cores_of(module, name)
    read = {parameter_of(op) for each in functions for op in walk(each) if isinstance(op, llm.WeightOp)}
    if not any(map(looked_up, functions)):
        others = [other for other in module.functions() if looked_up(other) & read]
        functions += sorted(others, key=token_count)[:1]
    made = ModuleOp.of(*(each.clone() for each in functions))  # type: ignore[arg-type]
    made.attributes = module.attributes
    return made


def cores_of(module: ModuleOp, name: str) -> list[Function]:
    """The function of that name, and those that run at the same time on other cores."""

    def run(function: Function) -> tuple[object, ...]:
        net = net_of(function)
        return net.name, net.stage, net.part.device, net.part.step

    wanted = run(module.function(name))
    return [each for each in module.functions() if run(each) == wanted]


def looked_up(function: Function) -> set[str]:
    """The parameters that rows are picked from by ids."""
    tables = [op.table.defining(llm.WeightOp) for op in walk(function) if isinstance(op, llm.EmbeddingOp)]
    return {parameter_of(table) for table in tables if table is not None}


def parameter_of(op: llm.WeightOp) -> str:
    """The one that a core may have but a part of."""
    return replace(view_of_name(op.name), cut=()).name
