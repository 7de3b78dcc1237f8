"""Choose how a module uses local memory: compile it in a few ways, and keep the fastest by the estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import log as logarithm

from compiler.diagnostics import log
from compiler.ir.module import discard
from compiler.target.attribute import target_of
from compiler.target.isa import isa_for
from compiler.target.spec import ChipSpec
from compiler.target.timing import estimate
from dialects.builtin import ModuleOp
from driver.pipelines import Effort
from passes.chip.allocate_local import DoesNotFit
from passes.emit_bmodel import encode

Lower = Callable[[Effort], ModuleOp]  # to instructions in program order
Place = Callable[[ModuleOp, Effort], ModuleOp]  # a copy of them with addresses; raises DoesNotFit

TILES = (0, 2, 4)  # times `work_bytes`, 0 for the default; larger ones are fewer commands, waited for longer
FILLS = (0.85, 0.7, 0.5, 0.0)  # loads further ahead hide more, and leave less room
BUDGET = 60_000  # instructions to place in trials, some 15 seconds' worth, before the best so far is taken


@dataclass(frozen=True)
class Candidate:
    """A way to compile, and its cost: the sum of the logarithms of all functions' cycles in each estimate."""

    effort: Effort
    cost: float


def fastest(lower: Lower, place: Place, input_length: int, spec: ChipSpec) -> Effort:
    """The best effort that single changes lead to, from all tokens at once on.

    Deterministic, and a handful of compilations, fewer of large programs. Raises DoesNotFit when nothing
    fits.
    """
    search = Search(lower, place, input_length, spec)
    best = search.first()
    while better := next(search.improvements(best), None):
        best = better
    log.debug("chosen: %s", best.effort)
    return best.effort


def run_lengths(input_length: int, lanes: int) -> list[int]:
    """0 for all tokens at once, then halves, in whole rows of lanes."""
    found = [0]
    length = -(-input_length // lanes) * lanes
    while length > lanes:
        length = -(-length // 2 // lanes) * lanes
        found.append(length)
    return found


class Search:
    """Compiles candidates and prices them, each once."""

    def __init__(self, lower: Lower, place: Place, input_length: int, spec: ChipSpec):
        self.lower = lower
        self.place = place
        self.placed = 0  # instructions so far
        self.axes = {
            "tile_bytes": [count * spec.work_bytes for count in TILES],
            "tokens": run_lengths(input_length, spec.lanes),
            "keep": [0, spec.lane_bytes // 2],
        }
        self._known: dict[Effort, Candidate | DoesNotFit] = {}

    def first(self) -> Candidate:
        """As many tokens at once as fit."""
        problem = DoesNotFit("nothing was tried")
        for tokens in self.axes["tokens"]:
            found = self.candidate(Effort(tokens))
            if isinstance(found, Candidate):
                return found
            problem = found
        raise problem

    def improvements(self, best: Candidate) -> Iterator[Candidate]:
        """What is cheaper and differs in one step along one axis."""
        for name, values in self.axes.items():
            place = values.index(getattr(best.effort, name))
            for value in values[max(0, place - 1) : place + 2]:
                if self.placed > BUDGET:
                    return
                effort = Effort(**{**asdict(best.effort), name: value, "fill": FILLS[0]})
                found = self.candidate(effort)
                if isinstance(found, Candidate) and found.cost < best.cost:
                    yield found

    def candidate(self, effort: Effort) -> Candidate | DoesNotFit:
        if effort not in self._known:
            self._known[effort] = self.filled(effort)
        return self._known[effort]

    def filled(self, effort: Effort) -> Candidate | DoesNotFit:
        """With as many loads ahead as fit; fewer are only tried for the smallest tiles."""
        lowered = self.lower(effort)
        try:
            return self.first_that_fits(lowered, effort, FILLS if not effort.tile_bytes else FILLS[:1])
        finally:
            discard(lowered)

    def first_that_fits(
        self, lowered: ModuleOp, effort: Effort, fills: Sequence[float]
    ) -> Candidate | DoesNotFit:
        problem = DoesNotFit("nothing was tried")
        for fill in fills:
            filled = replace(effort, fill=fill)
            self.placed += op_count(lowered)
            try:
                return Candidate(filled, self.price(lowered, filled))
            except DoesNotFit as error:
                problem = error.with_traceback(None)  # whose frames hold the module
        return problem

    def price(self, lowered: ModuleOp, effort: Effort) -> float:
        placed = self.place(lowered, effort)
        try:
            return module_cost(placed)
        finally:
            discard(placed)


def op_count(module: ModuleOp) -> int:
    """The number of ops in its functions."""
    return sum(len(function.block.ops) for function in module.functions())


def module_cost(module: ModuleOp) -> float:
    """See `Candidate`."""
    spec = target_of(module)
    isa = isa_for(spec)
    cost = 0.0
    for function in module.functions():
        streams = encode(function)
        tiu, dma = isa.decode("tiu", streams.tiu), isa.decode("dma", streams.dma)
        for cautious in (False, True):
            cost += logarithm(max(1, estimate(tiu, dma, spec, cautious=cautious).total))
    return cost
