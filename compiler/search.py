"""Choose how a module uses local memory: compile it in a few ways and keep the one that is estimated to be
fastest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import log as logarithm

from compiler.chips import ChipSpec
from compiler.isa import isa_for
from compiler.pipelines import Effort
from compiler.timing import estimate
from dialects.builtin import ModuleOp
from passes.chip.allocate_local import DoesNotFit
from passes.emit_bmodel import encode

log = logging.getLogger("compiler")

Compile = Callable[[Effort], ModuleOp]  # raises DoesNotFit

TILE_BYTES = (
    16384,
    32768,
    65536,
)  # per lane; larger tiles are fewer commands, but the last is waited for longer
FILLS = (0.85, 0.7, 0.5, 0.0)  # loads further ahead hide more, and leave less room


@dataclass(frozen=True)
class Candidate:
    """A compiled module and its cost: the sum over its functions of the logarithms of both estimates, in
    cycles.
    """

    effort: Effort
    module: ModuleOp
    cost: float


def fastest(compile_: Compile, input_length: int, spec: ChipSpec) -> Candidate:
    """The best of the tile sizes with all tokens at once, and then of fewer tokens at a time.

    Deterministic, and a handful of compilations. Raises DoesNotFit when nothing fits.
    """
    search = Search(compile_, spec)
    best = None
    for tokens in run_lengths(input_length, spec.lanes):
        found = search.best_of(Effort(tokens, tile) for tile in TILE_BYTES)
        if best is not None and (found is None or found.cost >= best.cost):
            break
        best = found
    if best is None:
        raise search.problem
    log.debug("chosen: %s", best.effort)
    return best


def run_lengths(input_length: int, lanes: int) -> Iterator[int]:
    """0 for all tokens at once, then halves, in whole rows of lanes."""
    yield 0
    length = -(-input_length // lanes) * lanes
    while length > lanes:
        length = -(-length // 2 // lanes) * lanes
        yield length


class Search:
    """Compiles candidates and prices them."""

    def __init__(self, compile_: Compile, spec: ChipSpec):
        self.compile = compile_
        self.spec = spec
        self.problem = DoesNotFit("nothing was tried")

    def best_of(self, efforts: Iterator[Effort]) -> Candidate | None:
        """The cheapest, of those in rising need of memory that fit; None if none does."""
        found = []
        for effort in efforts:
            try:
                found.append(self.candidate(effort))
            except DoesNotFit as error:
                self.problem = error
                break
            if len(found) > 1 and found[-1].cost > found[-2].cost:
                break
        return min(found, key=lambda candidate: candidate.cost, default=None)

    def candidate(self, effort: Effort) -> Candidate:
        """The module with as many loads ahead as fit; fewer are only tried for small tiles."""
        *more, last = FILLS if effort.tile_bytes == TILE_BYTES[0] else FILLS[:1]
        for fill in more:
            try:
                return self.priced(replace(effort, fill=fill))
            except DoesNotFit:
                continue
        return self.priced(replace(effort, fill=last))

    def priced(self, effort: Effort) -> Candidate:
        module = self.compile(effort)
        return Candidate(effort, module, module_cost(module, self.spec))


def module_cost(module: ModuleOp, spec: ChipSpec) -> float:
    isa = isa_for(spec)
    cost = 0.0
    for function in module.functions():
        streams = encode(function, spec)
        tiu, dma = isa.decode("tiu", streams.tiu), isa.decode("dma", streams.dma)
        for cautious in (False, True):
            cost += logarithm(max(1, estimate(tiu, dma, spec, cautious=cautious).total))
    return cost
