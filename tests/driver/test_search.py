"""The search for the fastest way to compile, with made-up costs: what it finds, and with how many tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import log

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.isa import isa_for
from compiler.target.timing import estimate
from dialects.builtin import ModuleOp
from driver import search
from driver.pipelines import Effort
from driver.search import BUDGET, FILLS, fastest, module_cost, run_lengths
from passes.chip.allocate_local import DoesNotFit
from passes.emit_bmodel import encode
from passes.manager import PassManager, parse_pipeline
from tests.passes.chip.random_programs import Move, program_of
from tests.passes.programs import PLACING

TILE_BYTES = (0, 32768, 65536)
TOKENS = (0, 256, 128, 64)  # for 512
KEEP = (0, BM1684X.lane_bytes // 2)


@pytest.fixture
def tried(monkeypatch) -> Callable[..., tuple[Effort, list[Effort]]]:
    """Search for 512 tokens, given what an effort costs and which fit; the best, and all that were tried."""

    def run(
        cost: Callable[[Effort], float], fits: Callable[[Effort], bool] = lambda effort: True, size: int = 1
    ) -> tuple[Effort, list[Effort]]:
        monkeypatch.setattr(search, "module_cost", cost)
        monkeypatch.setattr(search, "op_count", lambda effort: size)
        monkeypatch.setattr(search, "discard", lambda effort: None)
        tried: list[Effort] = []

        def place(lowered: Effort, effort: Effort) -> Effort:
            assert replace(lowered, fill=effort.fill) == effort
            tried.append(effort)
            if not fits(effort):
                raise DoesNotFit(f"{effort.tokens} tokens, {effort.fill} full")
            return effort

        lowered: list[Effort] = []
        best = fastest(lambda effort: lowered.append(effort) or effort, place, 512, BM1684X)
        assert len(lowered) == len({replace(effort, fill=0) for effort in tried}), "lowered again for a fill"
        return best, tried

    return run


def distance(goal: Effort) -> Callable[[Effort], float]:
    """Steps from an effort to the goal, over all axes of the search."""

    def steps(effort: Effort) -> float:
        axes = [(TOKENS, "tokens"), (TILE_BYTES, "tile_bytes"), (KEEP, "keep")]
        places = [[axis.index(getattr(e, name)) for e in (goal, effort)] for axis, name in axes]
        return sum(abs(one - other) for one, other in places)

    return steps


@pytest.mark.parametrize("goal", [Effort(*values) for values in product(TOKENS, TILE_BYTES, KEEP)], ids=str)
def test_the_least_of_a_cost_that_has_no_other_valley_is_found_in_few_tries(tried, goal):
    found, efforts = tried(distance(goal))
    assert found == goal
    assert len(efforts) <= 4 + 3 * distance(goal)(Effort())
    assert len(efforts) == len(set(efforts)), "an effort was compiled twice"


def test_all_tokens_at_once_are_tried_first_and_kept_where_nothing_is_better(tried):
    found, efforts = tried(lambda effort: 1.0)
    assert found == Effort()
    assert efforts == [Effort(), Effort(tile_bytes=32768), Effort(tokens=256), Effort(keep=KEEP[1])]


def test_fewer_tokens_are_tried_until_they_fit(tried):
    found, efforts = tried(lambda effort: 1.0, lambda effort: 0 < effort.tokens <= 128)
    assert found == Effort(tokens=128)
    lengths = [effort.tokens for effort in efforts[: 2 * len(FILLS) + 1]]
    assert lengths == [0] * len(FILLS) + [256] * len(FILLS) + [128]
    assert len(efforts) == len(set(efforts)), "an effort was compiled twice"


def test_what_does_not_fit_is_passed_by_on_the_way(tried):
    fits = lambda effort: effort.tile_bytes < 65536 and not effort.keep  # noqa: E731
    found, efforts = tried(distance(Effort(64, 65536, KEEP[1])), fits)
    assert found == Effort(64, 32768)
    assert Effort(64, 65536) in efforts
    assert Effort(64, 32768, KEEP[1]) in efforts


def test_where_nothing_fits_the_last_problem_is_raised(tried):
    efforts = []
    with pytest.raises(DoesNotFit, match=r"64 tokens, 0\.0 full"):
        tried(lambda effort: 1.0, lambda effort: efforts.append(effort) or False)
    assert efforts == [Effort(tokens, TILE_BYTES[0], 0, fill) for tokens in TOKENS for fill in FILLS]


def test_fewer_loads_ahead_are_tried_in_order_and_only_for_small_tiles(tried):
    found, efforts = tried(distance(Effort(256)), lambda effort: effort.fill <= 0.5)
    assert found == Effort(256, fill=0.5)
    small = [effort for effort in efforts if effort.tile_bytes == TILE_BYTES[0]]
    assert [effort.fill for effort in small] == [0.85, 0.7, 0.5] * (len(small) // 3)
    assert {effort.fill for effort in efforts if effort not in small} == {FILLS[0]}
    assert len(efforts) > len(small)
    assert len(efforts) == len(set(efforts)), "an effort was compiled twice"


def test_a_neighbour_of_what_needed_room_may_load_as_far_ahead_as_any(tried):
    found, _ = tried(distance(Effort(64)), lambda effort: effort.tokens > 0 or effort.fill < 0.6)
    assert found == Effort(64)


def test_a_step_that_costs_more_is_not_taken_whatever_lies_behind_it(tried):
    cost = {0: 2.0, 256: 3.0, 128: 0.0, 64: 0.0}
    found, efforts = tried(lambda effort: cost[effort.tokens])
    assert found == Effort()
    assert {effort.tokens for effort in efforts} == {0, 256}


def test_a_step_is_taken_back_when_another_makes_it_worse(tried):
    path = [Effort(), Effort(256), Effort(256, keep=KEEP[1]), Effort(keep=KEEP[1])]
    found, _ = tried(lambda effort: -path.index(effort) if effort in path else 1)
    assert found == path[-1]


@pytest.mark.parametrize(("size", "tries"), [(BUDGET + 1, 1), (BUDGET, 2), (BUDGET // 2, 3)])
def test_the_search_of_a_large_program_stops_at_the_best_so_far(tried, size, tries):
    found, efforts = tried(distance(Effort(tile_bytes=TILE_BYTES[-1], keep=KEEP[1])), size=size)
    assert found == efforts[-1] == Effort(tile_bytes=TILE_BYTES[tries - 1])
    assert len(efforts) == tries


def test_the_same_search_tries_the_same(tried):
    def cost(effort: Effort) -> float:
        return hash((effort.tokens, effort.tile_bytes, effort.keep)) % 1009

    assert tried(cost, lambda e: e.tokens != 0) == tried(cost, lambda e: e.tokens != 0)


@pytest.mark.parametrize(
    ("total", "lanes", "lengths"),
    [
        (1, 64, [0]),
        (64, 64, [0]),
        (65, 64, [0, 64]),
        (320, 64, [0, 192, 128, 64]),
        (512, 64, [0, 256, 128, 64]),
        (512, 32, [0, 256, 128, 64, 32]),
    ],
)
def test_runs_are_halves_in_whole_rows_of_lanes(total, lanes, lengths):
    assert run_lengths(total, lanes) == lengths


def test_a_module_costs_what_its_functions_are_estimated_to_take():
    def module(*counts: int) -> ModuleOp:
        functions = []
        for count in counts:
            moves = [Move("load", 0, 0), *[Move("copy", 1, 0)] * count, Move("store", 0, 0, 1, 0)]
            functions.append(program_of(moves, 2).functions()[0].clone())
            functions[-1].sym_name = f"copies_{count}"
        module = ModuleOp.of(*functions, target="bm1684x")
        PassManager(parse_pipeline(PLACING)).run(module)
        return module

    isa = isa_for(BM1684X)
    streams = encode(module(9).functions()[0])
    tiu, dma = isa.decode("tiu", streams.tiu), isa.decode("dma", streams.dma)
    both = [estimate(tiu, dma, BM1684X, cautious=cautious).total for cautious in (False, True)]
    assert module_cost(module(9)) == pytest.approx(log(both[0]) + log(both[1]))
    one, other = (module_cost(module(count)) for count in (9, 500))
    assert module_cost(module(9, 500)) == pytest.approx(one + other)
    assert other > one
