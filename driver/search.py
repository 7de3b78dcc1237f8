"""Choose how a module uses local memory: compile its functions in a few ways, and keep the fastest by the
estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from compiler.diagnostics import log
from compiler.progress import counter
from compiler.target.spec import ChipSpec
from driver.pipelines import Effort, Efforts
from driver.price import Price
from driver.work import Work
from passes.chip.allocate_local import DoesNotFit
from passes.options import ByFunction

TILES = (0, 2, 3, 4)  # times `work_bytes`, 0 for the default; larger ones are fewer, and waited for longer
FILLS = (0.85, 0.75, 0.7, 0.5, 0.0)  # loads further ahead hide more, and leave less room
BUDGET = 200_000  # instructions to place in trials before the best so far is taken
COMMAND = 1e-7  # of the cycles, to have one command less: long programs take time to compile
TIE = 0.001  # of the cycles: what differs less is as fast, as the estimates are not better than that


class Lowered(Protocol):
    """A function as instructions in program order."""

    @property
    def form(self) -> Hashable:
        """Equal where the instructions are."""

    @property
    def op_count(self) -> int: ...

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out that may need more room."""

    def price(self, effort: Effort) -> Price:
        """What it takes with addresses; raises DoesNotFit."""


Lower = Callable[[str, Effort], AbstractContextManager[Lowered]]


@dataclass(frozen=True)
class Candidate:
    """A way to compile a function, or those of a module."""

    efforts: Efforts
    cost: float  # the sum over all functions
    commands: float


def fastest(works: Mapping[str, Work], lower: Lower, spec: ChipSpec) -> Efforts:
    """The best efforts that single changes lead to, from a guess by sizes on; `works` are by function.

    Deterministic, and a few trials of each function. Raises DoesNotFit when nothing fits.
    """
    with counter("search", BUDGET, " instructions") as placed:
        search = Search(works, lower, spec, placed)
        search.climb()
    chosen = search.chosen()
    log.debug("chosen: %s", chosen.efforts)
    return chosen.efforts


def best_of(candidates: Iterable[Candidate]) -> Candidate:
    """The cheapest; of those that cost as much but for a tie, the one with the fewest commands."""
    found = list(candidates)
    least = min(each.cost for each in found)
    return min((each for each in found if each.cost <= least + TIE), key=lambda c: (c.commands, c.cost))


class Search:
    """Compiles candidates and prices them, each once."""

    def __init__(
        self,
        works: Mapping[str, Work],
        lower: Lower,
        spec: ChipSpec,
        tell: Callable[[int], object] = lambda placed: None,
    ):
        self.works = works
        self.lower = lower
        self.spec = spec
        self.tell = tell  # how many instructions were placed, for who waits
        self.tiles = [count * spec.work_bytes for count in TILES]
        self.op_count = 0  # instructions placed so far
        self._known: dict[tuple[str, Effort], Candidate | DoesNotFit] = {}
        self._prices: dict[Hashable, Price] = {}

    def climb(self) -> None:
        """Try single changes until none is cheaper, those to the tiles of all and to one function's effort in
        turn; then fewer loads ahead where tokens are many: for the room that these take, results may have to
        wait.
        """
        best, before = {name: self.first(name) for name in self.works}, None
        while best != before:
            before = best
            for changes in (self.tilings, self.steps):
                while better := next(self.cheaper(best, changes(best)), None):
                    best = better
        for name, effort in best.items():
            if self.works[name].tokens > 1:
                self.thin(name, effort)

    def thin(self, name: str, effort: Effort) -> None:
        """Load less ahead as long as that is cheaper."""
        found = self.candidate(name, effort)
        while isinstance(found, Candidate) and self.op_count <= BUDGET:
            lower = [fill for fill in FILLS if fill < found.efforts.usual.fill]
            thinner = self.candidate(name, replace(effort, fill=lower[0])) if lower else None
            if not isinstance(thinner, Candidate) or thinner.cost >= found.cost:
                return
            found = thinner

    def first(self, name: str) -> Effort:
        """As much at once as fits."""
        problem = DoesNotFit("nothing was tried")
        for effort in self.works[name].guesses(self.spec):
            found = self.candidate(name, effort)
            if isinstance(found, Candidate):
                return effort
            problem = found
        raise problem

    def cheaper(
        self, best: Mapping[str, Effort], changes: Iterable[Sequence[Mapping[str, Effort]]]
    ) -> Iterator[dict[str, Effort]]:
        """Of each kind of changes the cheapest, where that is cheaper than the best so far."""
        for kind in changes:
            found = [{**best, **changed} for changed in kind]
            costs = [self.cost(each) if self.op_count <= BUDGET else inf for each in found]
            if (least := min(costs, default=inf)) < self.cost(best):
                yield found[costs.index(least)]

    def tilings(self, best: Mapping[str, Effort]) -> Iterator[list[dict[str, Effort]]]:
        """Tiles one step larger or smaller."""
        place = self.tiles.index(next(iter(best.values())).tile_bytes)
        for tile_bytes in self.tiles[max(0, place - 1) : place + 2]:
            yield [{name: replace(effort, tile_bytes=tile_bytes) for name, effort in best.items()}]

    def steps(self, best: Mapping[str, Effort]) -> Iterator[list[dict[str, Effort]]]:
        """Those of each function by itself."""
        for name, effort in best.items():
            for kind in self.works[name].neighbours(effort, self.spec):
                yield [{name: step} for step in kind]

    def cost(self, efforts: Mapping[str, Effort]) -> float:
        """Of all these functions; infinite where one does not fit."""
        found = [self.candidate(name, effort) for name, effort in efforts.items()]
        return sum(each.cost if isinstance(each, Candidate) else inf for each in found)

    def candidate(self, name: str, effort: Effort) -> Candidate | DoesNotFit:
        if (name, effort) not in self._known:
            try:
                self._known[name, effort] = self.tried(name, effort)
            except DoesNotFit as problem:
                self._known[name, effort] = problem.with_traceback(None)  # whose frames hold the module
        return self._known[name, effort]

    def tried(self, name: str, effort: Effort) -> Candidate:
        """With as many loads ahead as fit; with fewer where the whole program may need more room."""
        work = self.works[name]
        work.check(effort, self.spec)
        effort = replace(effort, scores=work.scores(effort, self.spec))
        with self.lower(name, effort) as lowered:
            *fills, last = [fill for fill in FILLS[not lowered.is_whole :] if fill <= effort.fill]
            for fill in fills:
                with suppress(DoesNotFit):
                    return self.placed(name, lowered, replace(effort, fill=fill))
            return self.placed(name, lowered, replace(effort, fill=last))

    def placed(self, name: str, lowered: Lowered, effort: Effort) -> Candidate:
        """Efforts may differ in tiles, or weights to keep, of which a function has none."""
        key = name, lowered.form, replace(effort, tile_bytes=0, keep=0)
        if key not in self._prices:
            self._prices[key] = lowered.price(effort)
            self.op_count += lowered.op_count
            self.tell(lowered.op_count)
        price = self._prices[key]
        log.debug("%s: %s", effort, price)
        return Candidate(ByFunction(effort), price.cost + COMMAND * price.commands, price.commands)

    def chosen(self) -> Candidate:
        """The best of all that was tried, among the sizes of tiles that all functions were tried with."""
        found = []
        for tile_bytes in self.tiles:
            known = {name: self.known(name, tile_bytes) for name in self.works}
            if all(known.values()):
                found.append(joined({name: best_of(candidates) for name, candidates in known.items()}))
        return best_of(found)

    def known(self, name: str, tile_bytes: int) -> list[Candidate]:
        return [
            found
            for (of, effort), found in self._known.items()
            if of == name and effort.tile_bytes == tile_bytes and isinstance(found, Candidate)
        ]


def joined(found: Mapping[str, Candidate]) -> Candidate:
    """What is chosen for each function, as one."""
    efforts = ByFunction.of({name: each.efforts.usual for name, each in found.items()})
    return Candidate(
        efforts, sum(each.cost for each in found.values()), sum(each.commands for each in found.values())
    )
