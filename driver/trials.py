"""What a function would take if it were compiled in some way: a trial is compiled to its end, unverified."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, discard, walk
from compiler.target.attribute import target_of
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import net_of, token_count
from dialects.weights import view_of_name
from driver.pipelines import Effort, emitting, placing, tiling
from driver.price import Price, price_of
from driver.sample import Sample, SectionSample, Some, sample_of
from passes.options import ByFunction
from passes.tensor_to_chip.context import unpacked_bytes

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
        names = [each.sym_name for each in cores_of(module, name)]
        spec = target_of(module)
        sample = sample_of(module.function(name), effort, spec)
        some = sample.programs if sample else [Some()]
        pipelines = [tiling(ByFunction(effort), each.runs, each.sections) for each in some]
        with ExitStack() as stack:
            tiled = [stack.enter_context(self.passed(module, pipeline)) for pipeline in pipelines]
            unpacked = unpacked_bytes(effort.tile_bytes, spec)
            yield Trial(names, tiled, unpacked, sample, self.passed, stack)

    @contextmanager
    def passed(self, module: ModuleOp, pipeline: str) -> Iterator[ModuleOp]:
        """What a pipeline makes of a module, until that is done with."""
        made = self.run_passes(module, pipeline)
        try:
            yield made
        finally:
            discard(made)


@dataclass(frozen=True)
class Trial:
    """A net tile by tile: all of it, or the programs of a sample. It is lowered further when asked for."""

    names: Sequence[str]  # of its cores
    tiled: Sequence[ModuleOp]
    unpacked: int  # bytes of a tile at a time
    sample: Sample | SectionSample | None
    passed: Callable[[ModuleOp, str], AbstractContextManager[ModuleOp]]
    stack: ExitStack  # closed when the trial is over

    @property
    def form(self) -> Hashable:
        """What its instructions depend on."""
        return self.unpacked, *map(structure, self.tiled)

    @cached_property
    def programs(self) -> Sequence[ModuleOp]:
        """As instructions in program order."""
        pipeline = emitting(self.unpacked)
        return [self.stack.enter_context(self.passed(each, pipeline)) for each in self.tiled]

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
        with self.passed(program, placing(ByFunction(effort))) as finished:
            return price_of(*self.cores(finished))

    def cores(self, program: ModuleOp) -> list[Function]:
        return [*map(program.function, self.names)]


def structure(root: Op) -> Hashable:
    """What tells ops from others but names and where they come from."""
    numbers: dict[Value, int] = defaultdict(count().__next__)

    def of(op: Op) -> Hashable:
        made = [*op.results, *(arg for region in op.regions for arg in region.block.args)]
        values = [numbers[value] for value in (*op.operands, *made)]
        return type(op), *values, *(value.type for value in made), *frozen(op.attributes.items())

    return tuple(map(of, walk(root)))


def frozen(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(frozen(item) if isinstance(item, list | tuple) else item for item in items)


def alone(module: ModuleOp, name: str) -> ModuleOp:
    """A module with one of the functions, for all cores, and with the smallest of those that look up rows of
    the weights that it reads otherwise: how these lie depends on it.
    """
    functions = cores_of(module, name)
    read = {uncut(op) for each in functions for op in walk(each) if isinstance(op, llm.WeightOp)}
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
    return {uncut(table) for table in tables if table is not None}


def uncut(op: llm.WeightOp) -> str:
    """The name of what a device may have but some rows or columns of."""
    return replace(view_of_name(op.name), cut=()).name
