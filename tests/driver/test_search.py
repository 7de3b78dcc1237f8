"""The search for the fastest way to compile, with made-up costs: what it finds, and with how many tries."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from math import exp, log2

import pytest

from compiler.target.chips.bm1684x import BM1684X
from driver.pipelines import Effort
from driver.price import Price
from driver.search import BUDGET, COMMAND, FILLS, TIE, Candidate, Search, best_of, fastest
from driver.work import Work
from passes.chip.allocate_local import DoesNotFit
from passes.options import ByFunction

TILE_BYTES = (0, 32768, 49152, 65536)
TOKENS = (0, 256, 128, 64)  # for 512
KEEP = (0, BM1684X.lane_bytes // 2)
WEIGHTS = 1  # any at all
BLOCK = {"block": Work(512, weight_bytes=WEIGHTS)}
LANES = BM1684X.lanes


@dataclass
class Compiler:
    """Says what a function costs that is compiled in some way, and records all that it was asked."""

    cost: Callable[[str, Effort], float]
    fits: Callable[[str, Effort], bool] = lambda name, effort: True
    commands: Callable[[str, Effort], float] = lambda name, effort: 1
    size: int = 1
    whole: bool = True
    form: Callable[[Effort], Hashable] = lambda effort: effort
    lowered: list[tuple[str, Effort]] = field(default_factory=list)
    tried: list[tuple[str, Effort]] = field(default_factory=list)

    @contextmanager
    def lower(self, name: str, effort: Effort) -> Iterator[Program]:
        self.lowered.append((name, effort))
        yield Program(self, name, effort)

    def search(self, works: dict[str, Work]) -> ByFunction[Effort]:
        found = fastest(works, self.lower, BM1684X)
        assert len(self.lowered) == len(set(self.lowered)), "a function was lowered twice in one way"
        assert len(self.tried) == len(set(self.tried)), "a function was compiled twice in one way"
        return found


@dataclass
class Program:
    compiler: Compiler
    name: str
    effort: Effort

    @property
    def form(self) -> Hashable:
        return self.compiler.form(replace(self.effort, fill=1))

    @property
    def op_count(self) -> int:
        return self.compiler.size

    @property
    def is_whole(self) -> bool:
        return self.compiler.whole

    def price(self, effort: Effort) -> Price:
        assert replace(self.effort, fill=effort.fill, scores=effort.scores) == effort
        self.compiler.tried.append((self.name, effort))
        if not self.compiler.fits(self.name, effort):
            raise DoesNotFit(f"{effort.tokens} tokens, {effort.fill} full")
        cycles = exp(self.compiler.cost(self.name, effort))
        return Price(1000 * cycles, 1000 * cycles, self.compiler.commands(self.name, effort))


def of_block(
    cost: Callable[[Effort], float], fits: Callable[[Effort], bool] = lambda effort: True
) -> tuple[Effort, list[Effort]]:
    """Search for 512 tokens, given what an effort costs and which fit; the best, and all that were tried."""
    compiler = Compiler(lambda _, effort: cost(effort), lambda _, effort: fits(effort))
    found = compiler.search(BLOCK)
    return found["block"], [effort for _, effort in compiler.tried]


def distance(goal: Effort) -> Callable[[Effort], float]:
    """Steps from an effort to the goal, over all axes of the search."""

    def steps(effort: Effort) -> float:
        axes = [(TOKENS, "tokens"), (TILE_BYTES, "tile_bytes"), (KEEP, "keep")]
        places = [[axis.index(getattr(e, name)) for e in (goal, effort)] for axis, name in axes]
        return sum(abs(one - other) for one, other in places)

    return steps


GOALS = [Effort(*values) for values in product(TOKENS, TILE_BYTES, KEEP)]


@pytest.mark.parametrize("goal", [goal for goal in GOALS if goal.tokens != 64 or not goal.keep], ids=str)
def test_the_least_of_a_cost_that_has_no_other_valley_is_found_in_few_tries(goal):
    found, efforts = of_block(distance(goal))
    assert found == goal
    assert len(efforts) <= 5 + 3 * distance(goal)(Effort())


def test_all_tokens_at_once_are_tried_first_and_kept_where_nothing_is_better():
    found, efforts = of_block(lambda effort: 1.0)
    assert found == Effort()
    changed = [Effort(tile_bytes=32768), Effort(tokens=256), Effort(keep=KEEP[1])]
    assert efforts == [Effort(), *changed, Effort(fill=FILLS[1])]


def test_less_is_loaded_ahead_as_long_as_that_is_cheaper():
    found, efforts = of_block(lambda effort: abs(effort.fill - 0.7) + len(str(effort.tokens)))
    assert found == Effort(fill=0.7)
    assert [effort.fill for effort in efforts if effort.fill < 0.85] == [0.75, 0.7, 0.5]


def test_efforts_that_make_the_same_program_are_priced_once():
    """A function that has two tiles at most, and no weights to keep."""
    as_two = lambda effort: replace(effort, tile_bytes=min(effort.tile_bytes, 32768), keep=0)  # noqa: E731
    compiler = Compiler(lambda name, effort: -min(effort.tile_bytes, 32768) / 1e5, form=as_two)
    found = compiler.search({"block": Work(64, weight_bytes=WEIGHTS)})
    assert found["block"] == Effort(tile_bytes=32768)
    assert Effort(tile_bytes=49152) in [effort for _, effort in compiler.lowered]
    priced = [effort for _, effort in compiler.tried]
    assert priced == [Effort(), Effort(tile_bytes=32768), Effort(tile_bytes=32768, fill=FILLS[1])]


def test_tiles_are_changed_again_when_all_else_was():
    """They gain with runs of 256 tokens only."""
    tiles, cost = {0: 0, 32768: 1}, {0: (2, 3), 256: (1.5, 1)}
    found, efforts = of_block(lambda effort: cost.get(effort.tokens, (4, 4))[tiles.get(effort.tile_bytes, 1)])
    assert found == Effort(256, 32768)
    places = [efforts.index(Effort(*each)) for each in ((0, 32768), (256, 0), (128, 0), (256, 32768))]
    assert places == sorted(places)


def test_fewer_tokens_are_tried_until_they_fit():
    found, efforts = of_block(lambda effort: 1.0, lambda effort: 0 < effort.tokens <= 128)
    assert found == Effort(tokens=128)
    lengths = [effort.tokens for effort in efforts[: 2 * len(FILLS) + 1]]
    assert lengths == [0] * len(FILLS) + [256] * len(FILLS) + [128]


def test_what_cannot_fit_by_its_size_is_not_lowered():
    """Rows of lanes take a quarter of a lane: two leave room for the rest, four fit it exactly."""
    compiler = Compiler(lambda _, effort: -(effort.tokens or 512) / 100)
    found = compiler.search({"block": Work(512, row_bytes=BM1684X.lane_bytes // 4)})
    assert found["block"] == Effort(tokens=256)
    assert [effort.tokens for _, effort in compiler.lowered if effort.fill == FILLS[0]][::2] == [128, 256]
    assert {effort.tokens for _, effort in compiler.lowered} == {128, 256}


def test_what_does_not_fit_is_passed_by_on_the_way():
    fits = lambda effort: effort.tile_bytes < 49152 and not effort.keep  # noqa: E731
    found, efforts = of_block(distance(Effort(128, 49152, KEEP[1])), fits)
    assert found == Effort(128, 32768)
    assert Effort(128, 49152) in efforts
    assert Effort(128, 32768, KEEP[1]) in efforts


def test_where_nothing_fits_the_last_problem_is_raised():
    compiler = Compiler(lambda *_: 1.0, lambda *_: False)
    with pytest.raises(DoesNotFit, match=r"64 tokens, 0\.0 full"):
        compiler.search(BLOCK)
    efforts = [effort for _, effort in compiler.tried]
    assert efforts == [Effort(tokens, 0, 0, fill) for tokens in TOKENS for fill in FILLS]


def test_where_nothing_fits_by_its_size_the_message_says_so_by_number():
    compiler = Compiler(lambda *_: 1.0)
    problem = f"^64 tokens at a time need at least {BM1684X.lane_bytes + 1} bytes .* has {BM1684X.lane_bytes}$"
    with pytest.raises(DoesNotFit, match=problem):
        compiler.search({"block": Work(512, row_bytes=BM1684X.lane_bytes + 1)})
    assert not compiler.lowered


def test_fewer_loads_ahead_are_tried_in_order():
    found, efforts = of_block(distance(Effort(256)), lambda effort: effort.fill <= 0.5)
    assert found == Effort(256, fill=0.5)
    *climbed, last = [effort.fill for effort in efforts]
    assert climbed == [0.85, 0.75, 0.7, 0.5] * (len(climbed) // 4)
    assert last == 0.0


def test_a_program_with_parts_left_out_leaves_some_room_for_what_it_does_not_show():
    compiler = Compiler(lambda *_: 1.0, lambda _, effort: effort.fill < 0.7, whole=False)
    assert compiler.search(BLOCK)["block"] == Effort(fill=0.5)
    assert [effort.fill for _, effort in compiler.tried][:3] == [0.75, 0.7, 0.5]


def test_a_neighbour_of_what_needed_room_may_load_as_far_ahead_as_any():
    found, _ = of_block(distance(Effort(64)), lambda effort: effort.tokens > 0 or effort.fill < 0.6)
    assert found == Effort(64)


def test_a_step_that_costs_more_is_not_taken_whatever_lies_behind_it():
    cost = {0: 2.0, 256: 3.0, 128: 0.0, 64: 0.0}
    found, efforts = of_block(lambda effort: cost[effort.tokens])
    assert found == Effort()
    assert {effort.tokens for effort in efforts} == {0, 256}


def test_a_step_is_taken_back_when_another_makes_it_worse():
    path = [Effort(), Effort(256), Effort(256, keep=KEEP[1]), Effort(keep=KEEP[1])]
    found, _ = of_block(lambda effort: -path.index(effort) if effort in path else 1)
    assert found == path[-1]


# ---- several functions ----


def test_functions_are_tuned_apart_but_for_their_tiles():
    works = {**BLOCK, "block_cache": Work(1)}
    compiler = Compiler(lambda name, effort: distance(Effort(64, 32768, 0))(effort) if name == "block" else 0.0)
    found = compiler.search(works)
    assert found == ByFunction(Effort(64, 32768), (("block_cache", Effort(0, 32768)),))
    of_decode = [effort for name, effort in compiler.lowered if name == "block_cache"]
    assert of_decode == [Effort(), Effort(tile_bytes=32768), Effort(tile_bytes=49152)]


def test_each_function_loads_as_far_ahead_as_it_fits():
    compiler = Compiler(lambda *_: 1.0, lambda name, effort: name == "block_cache" or effort.fill < 0.8)
    found = compiler.search({**BLOCK, "block_cache": Work(1)})
    assert [found[name].fill for name in ("block", "block_cache")] == [0.75, 0.85]


@pytest.mark.parametrize(("gain", "tile_bytes"), [(0.1, 32768), (0.3, 0)])
def test_larger_tiles_are_taken_where_all_functions_together_gain(gain, tile_bytes):
    """Of one token they gain 0.2."""
    costs = {"block": gain, "block_cache": -0.2}
    compiler = Compiler(lambda name, effort: costs[name] * min(1, effort.tile_bytes))
    found = compiler.search({"block": Work(64), "block_cache": Work(1)})
    assert {found[name].tile_bytes for name in costs} == {tile_bytes}


def test_who_waits_is_told_how_many_instructions_were_placed():
    compiler, told = Compiler(lambda *_: 1.0), []
    search = Search(BLOCK, compiler.lower, BM1684X, told.append)
    search.climb()
    assert told == [compiler.size] * len(compiler.tried)
    assert sum(told) == search.op_count > 0


# ---- long calls ----

LONG = {"block": Work(4096, 4096, row_bytes=4096, weight_bytes=WEIGHTS)}


def test_a_long_call_begins_with_runs_of_some_hundred_tokens_and_blocks_of_twice_as_many_keys():
    compiler = Compiler(lambda *_: 1.0)
    found = compiler.search(LONG)
    assert found["block"] == Effort(512, keys=1024, scores=2 * BM1684X.work_bytes)
    steps = [(effort.tokens, effort.keys, effort.tile_bytes) for _, effort in compiler.tried]
    larger, smaller = [(1024, 2048, 0), (1024, 1024, 0)], [(512, 512, 0)]
    assert steps == [(512, 1024, 0), (512, 1024, 32768), *larger, *smaller, (512, 1024, 0)]


@pytest.mark.parametrize("goal", [(1024, 512), (256, 512), (256, 256), (1024, 2048), (128, 64)])
def test_runs_and_blocks_are_found_step_by_step(goal):
    def cost(_: str, effort: Effort) -> float:
        found = (effort.tokens or 4096, effort.keys or 4096)
        return sum(abs(log2(one / other)) for one, other in zip(goal, found, strict=True))

    compiler = Compiler(cost)
    found = compiler.search(LONG)["block"]
    assert (found.tokens, found.keys) == goal
    assert len(compiler.tried) <= 7 + 4 * cost("", Effort(512, keys=1024))


def test_of_several_steps_to_more_at_once_the_cheapest_is_taken():
    """The first of them is cheaper too, and no step leads back from where it leads to."""
    costs = {(1024, 2048): 2.0, (2048, 2048): 1.5, (1024, 1024): 1.0}
    compiler = Compiler(lambda _, effort: costs.get((effort.tokens, effort.keys), 3.0))
    found = compiler.search(LONG)["block"]
    assert (found.tokens, found.keys) == (1024, 1024)


def test_a_step_of_decode_meets_all_keys_at_once_or_the_most_that_fit():
    compiler = Compiler(lambda *_: 1.0, lambda _, effort: 0 < effort.keys <= 1024)
    found = compiler.search({"block_cache": Work(1, 4096)})
    assert found["block_cache"] == Effort(keys=1024, scores=2 * BM1684X.work_bytes)
    keys = [effort.keys for _, effort in compiler.tried]
    assert keys == [0] * len(FILLS) + [2048] * len(FILLS) + [1024, 1024, 512]


# ---- ties ----


@pytest.mark.parametrize(
    ("costs", "commands", "chosen"),
    [
        ((1.0, 1.0 - 0.9 * TIE), (10, 20), 0),  # as fast, with fewer commands
        ((1.0, 1.0 - 1.1 * TIE), (10, 20), 1),
        ((1.0, 1.0 - 0.9 * TIE), (20, 10), 1),
        ((1.0, 1.0 - 0.9 * TIE), (10, 10), 1),
        ((1.0, 1.0 - 0.6 * TIE, 1.0 - 1.2 * TIE), (5, 10, 20), 1),  # within a tie of the least, not of each other
    ],
)
def test_what_is_as_fast_is_chosen_by_its_commands(costs, commands, chosen):
    candidates = [Candidate(ByFunction(Effort(i)), *each) for i, each in enumerate(zip(costs, commands, strict=True))]
    assert best_of(candidates) == candidates[chosen]


@pytest.mark.parametrize("better", [0.9 * TIE, 1.1 * TIE])
def test_tiles_that_gain_next_to_nothing_are_not_worth_more_commands(better):
    compiler = Compiler(
        lambda _, effort: 1.0 - better * min(1, effort.tile_bytes), commands=lambda _, effort: 1 + effort.tile_bytes // 1024
    )
    found = compiler.search({"block_cache": Work(1)})
    assert (found["block_cache"].tile_bytes > 0) == (better > TIE)


@pytest.mark.parametrize("better", [0.7, 1.3])
def test_a_long_program_may_be_slower_if_it_is_shorter(better):
    """By a tenth of a percent for ten thousand commands."""
    commands = 50_000
    compiler = Compiler(
        lambda _, effort: 1.0 - better * COMMAND * commands * (effort.tile_bytes > 0),
        commands=lambda _, effort: 10_000 + commands * (effort.tile_bytes > 0),
    )
    assert COMMAND * commands > TIE
    found = compiler.search({"block": Work(1)})
    assert (found["block"].tile_bytes > 0) == (better > 1)


def test_both_estimates_count_alike():
    assert Price(100, 400, 1).cost == pytest.approx(Price(400, 100, 1).cost) == pytest.approx(Price(200, 200, 1).cost)


# ---- how much is tried ----


@pytest.mark.parametrize(("size", "tries"), [(BUDGET + 1, 1), (BUDGET, 2), (BUDGET // 2, 3)])
def test_the_search_of_a_large_program_stops_at_the_best_so_far(size, tries):
    cost = distance(Effort(tile_bytes=TILE_BYTES[-1], keep=KEEP[1]))
    compiler = Compiler(lambda _, effort: cost(effort), size=size)
    found = compiler.search(BLOCK)
    assert found["block"] == compiler.tried[-1][1] == Effort(tile_bytes=TILE_BYTES[tries - 1])
    assert len(compiler.tried) == tries


def test_only_what_was_placed_counts():
    fits = lambda _, effort: effort.tokens == 64  # noqa: E731
    compiler = Compiler(lambda _, effort: effort.tile_bytes / -1e5, fits, size=BUDGET)
    assert compiler.search(BLOCK)["block"] == Effort(64, 32768)


def test_every_function_is_compiled_once_however_large():
    compiler = Compiler(lambda *_: 1.0, size=BUDGET + 1)
    compiler.search({**BLOCK, "block_cache": Work(1)})
    assert compiler.tried == [("block", Effort()), ("block_cache", Effort())]


def test_the_same_search_tries_the_same():
    def cost(effort: Effort) -> float:
        return hash((effort.tokens, effort.tile_bytes, effort.keep)) % 1009 / 100

    assert of_block(cost, lambda e: e.tokens != 0) == of_block(cost, lambda e: e.tokens != 0)
