"""Two runs tell what many take."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from compiler.target.chips.bm1684x import BM1684X
from dialects.llm import AttentionOp, Visible
from driver import sample
from driver.pipelines import Effort
from driver.price import Price
from driver.sample import Sample, SectionSample, Some, sample_of, seen_keys
from driver.trials import Trial, Trials
from frontend.importer import import_model
from passes.ranges import Range
from tests.driver.fused import after, groups, trial
from tests.frontend.oracle import FUSED, SMALL
from tests.vision import vision_config

BLOCK = "block"


def block(**settings):
    model = import_model({**SMALL, "model_type": "mistral", **settings}, 64)
    return next(group.module.function(BLOCK) for group in model.nets if group.of_layers)


@pytest.mark.parametrize("numbers", [([1], [2]), ([1], [3]), ([2, 3], [4, 5])])
def test_what_is_a_straight_line_in_the_keys_is_priced_exactly(numbers):
    """A program takes 100 to begin with, each run 7 and 2 for each key that it sees."""
    seen = [3, 5, 8, 12, 12, 12]

    def program(some):
        cycles = 100.0 + sum(7 + 2 * seen[run] for run in some.runs)
        return Price(cycles, 3 * cycles, len(some.runs))

    found = Sample(seen, *numbers)
    assert found.price(*map(program, found.programs)) == program(Some((*range(6),)))


def test_runs_that_all_see_as_much_take_as_long():
    found = Sample([4, 4, 4, 4, 4], [1], [2])
    assert found.price(Price(10, 20, 1), Price(10, 20, 1), Price(17, 34, 2)) == Price(38, 76, 5)


@pytest.mark.parametrize(("settings", "seen"), [({"sliding_window": None}, [16, 32, 48, 64]), ({"sliding_window": 9}, [16, 24, 24, 24])])
def test_a_run_sees_the_keys_of_its_first_query_up_to_its_last(settings, seen):
    function = block(**settings)
    assert [seen_keys(function, Range(start, start + 16)) for start in range(0, 64, 16)] == seen


@pytest.mark.parametrize(("shown", "seen"), [(Visible("all"), [64] * 4), (Visible("band", 9), [24, 32, 32, 24])])
def test_a_run_that_sees_later_keys_sees_those_up_to_its_last_querys_last(shown, seen):
    function = block(sliding_window=None)
    for op in function.block.ops:
        if isinstance(op, AttentionOp):
            op.visible = shown
    assert [seen_keys(function, Range(start, start + 16)) for start in range(0, 64, 16)] == seen


def test_few_runs_are_all_compiled():
    function = groups()["block_0"].module.function(BLOCK)
    assert sample_of(function, Effort(64, keys=64), BM1684X) is None
    assert sample_of(function, Effort(), BM1684X) is None


@pytest.mark.parametrize("effort", [Effort(64, keys=64, fill=0.7), Effort(64, 1024, keys=64), Effort(64, keys=128), Effort(128, keys=64)], ids=str)
def test_a_shortened_program_has_the_price_of_the_whole_one(monkeypatch, effort):
    fused = groups(640)["block_0"].module
    prices = []
    for few in (sample.FEW, 100):
        monkeypatch.setattr(sample, "FEW", few)
        with Trials(fused, trial).lower(BLOCK, effort) as lowered:
            assert lowered.is_whole == (few == 100)
            prices.append(lowered.price(effort))
    short, whole = prices
    off = [abs(short.plain / whole.plain - 1), abs(short.cautious / whole.cautious - 1)]
    assert max(off) < 0.001


def test_groups_of_runs_meet_blocks_alike_and_are_the_further_apart_the_more_there_are():
    numbers = []
    for length, keys in ((640, 64), (640, 128), (1280, 64), (1280, 128)):
        found = sample_of(groups(length)["block_0"].module.function(BLOCK), Effort(64, keys=keys), BM1684X)
        numbers.append(([*found.near], [*found.far]))
    assert numbers == [([1], [3]), ([2, 3], [6, 7]), ([2], [6]), ([2, 3], [6, 7])]


def test_to_price_a_call_takes_a_part_of_its_program(monkeypatch):
    counts = []
    for few in (sample.FEW, 100):
        monkeypatch.setattr(sample, "FEW", few)
        with Trials(groups(1280)["block_0"].module, trial).lower(BLOCK, Effort(64, keys=64)) as lowered:
            counts.append(lowered.op_count)
    assert counts[0] < counts[1] / 2


def tower(**settings):
    """That of Qwen2.5-VL for 192 patches."""
    found = vision_config("qwen2_5_vl").to_dict()
    found["vision_config"] |= settings
    group = next(group for group in import_model(found, 64, patches=192).nets if group.name == "vit")
    return after(group.module, FUSED).function("vit")


def test_one_section_of_each_kind_stands_for_all_of_its_kind():
    """A tower of four layers in three runs: its patches, layers of two kinds, the last, and the merged ones."""
    function = tower(fullatt_block_indexes=[2], depth=4)
    found = sample_of(function, Effort(tokens=64), BM1684X)
    assert isinstance(found, SectionSample)
    assert [(some.sections, times) for some, times in zip(found.programs, found.times, strict=True)] == [
        ((0,), 1.5), ((1,), 3.0), ((3,), 1.5), ((4,), 1.5), ((5,), 1), ((6,), 1),
    ]
    assert all(some.runs == ((0, 1) if some.sections[0] < 5 else ()) for some in found.programs)
    assert found.price(*[Price(10, 20, 1)] * 6) == Price(95, 190, 9.5)
    assert Trial(["vit"], [], 0, found, trial, ExitStack()).is_whole


def test_sections_of_which_none_would_be_left_out_are_compiled_together():
    """Two runs are all compiled, and so are two unlike layers."""
    few, more = (tower(fullatt_block_indexes=[depth // 2], depth=depth) for depth in (2, 4))
    assert sample_of(few, Effort(tokens=128), BM1684X) is None
    assert sample_of(few, Effort(tokens=64), BM1684X) is not None
    assert sample_of(more, Effort(tokens=128), BM1684X) is not None
