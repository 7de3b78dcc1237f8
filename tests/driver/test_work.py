"""What can be said of a function by its sizes: nothing is refused that would fit."""

from __future__ import annotations

import pytest

from compiler.target.chips.bm1684x import BM1684X
from driver.pipelines import Effort, lowering
from driver.work import SCORES, WITH_SCORES, Work, run_lengths, work_of
from passes.chip.allocate_local import DoesNotFit
from passes.chip.lives import live_bytes, lives, shortest
from passes.options import ByFunction
from tests.driver.fused import LENGTH, after, groups

LANES = BM1684X.lanes


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


def test_the_sizes_of_a_block_are_those_of_what_is_alive_at_its_gate_and_of_its_keys():
    """A hidden size of 64, 4 heads, 2 KV heads of 16: the normed states in 16 bit, and the sums in f32."""
    function = groups()["block_0"].module.function("block")
    weights = 64 * (64 + 2 * 32 + 64 + 3 * 96)
    expected = Work(
        tokens=192,
        keys=192,
        row_bytes=64 * (2 + 4),
        key_bytes=2 * 2 * 16 * 2,
        seen_bytes=4 * 16 * (2 + 4),
        weight_bytes=2 * weights // LANES,
    )
    assert work_of(function, BM1684X) == expected


@pytest.mark.parametrize("effort", [Effort(), Effort(128), Effort(64), Effort(64, keep=1 << 17), Effort(64, keys=128), Effort(128, keys=64)])
def test_a_program_needs_at_least_what_the_sizes_say(effort):
    fused = groups()["block_0"].module
    function = after(fused, lowering(ByFunction(effort))).function("block")
    ops = list(function.block.ops)
    live = live_bytes(shortest(lives(ops, BM1684X)), len(ops)).max()
    least = work_of(fused.function("block"), BM1684X).least_bytes(effort, BM1684X)
    assert 0 < least <= live


def test_twice_as_many_scores_become_weights_at_a_time_where_there_is_room():
    twice = 2 * BM1684X.work_bytes
    room = int(WITH_SCORES * BM1684X.lane_bytes) - SCORES * twice
    assert Work(64, 64, row_bytes=room).scores(Effort(), BM1684X) == twice
    assert Work(64, 64, row_bytes=room + 1).scores(Effort(), BM1684X) == 0
    assert Work(64, row_bytes=room).scores(Effort(), BM1684X) == 0
    assert Work(1, 64).scores(Effort(), BM1684X) == twice


def test_a_call_of_one_token_has_a_choice_only_of_how_many_keys_it_meets_at_a_time():
    work = work_of(groups()["block_0"].module.function("block_cache"), BM1684X)
    assert work.keys == LENGTH + 1
    assert list(work.guesses(BM1684X)) == [Effort(keys=keys) for keys in (0, 128, 64)]
    assert list(work.neighbours(Effort(), BM1684X)) == [[], [Effort(keys=128)]]


def test_what_fills_local_memory_is_tried_and_one_byte_more_is_refused():
    rows = BM1684X.lane_bytes // 4
    Work(256, row_bytes=rows).check(Effort(), BM1684X)
    Work(256, row_bytes=rows - 10, key_bytes=10).check(Effort(), BM1684X)
    with pytest.raises(DoesNotFit, match=f"^256 tokens .* {BM1684X.lane_bytes + 4} bytes"):
        Work(256, row_bytes=rows + 1).check(Effort(), BM1684X)
    Work(64, row_bytes=rows, weight_bytes=4 * rows).check(Effort(keep=3 * rows), BM1684X)
    with pytest.raises(DoesNotFit, match=f" {BM1684X.lane_bytes + 1} bytes"):
        Work(64, row_bytes=rows + 1, weight_bytes=4 * rows).check(Effort(keep=3 * rows), BM1684X)
    Work(64, row_bytes=rows + 1, weight_bytes=rows).check(Effort(keep=3 * rows), BM1684X)
    Work(256, 256, seen_bytes=rows, key_bytes=rows // 2).check(Effort(128, keys=128), BM1684X)
    with pytest.raises(DoesNotFit, match=f"^128 tokens .* {BM1684X.lane_bytes + 2} bytes"):
        Work(256, 256, seen_bytes=rows + 1, key_bytes=rows // 2).check(Effort(128, keys=128), BM1684X)
    with pytest.raises(DoesNotFit, match=f"^128 tokens .* {BM1684X.lane_bytes + 8} bytes"):
        Work(256, row_bytes=rows, key_bytes=rows // 2 + 2).check(Effort(128), BM1684X)


LANE = BM1684X.lane_bytes


@pytest.mark.parametrize(
    ("work", "effort", "more", "less"),
    [
        (Work(256, weight_bytes=1), Effort(128, 9), [Effort(0, 9)], [Effort(64, 9), Effort(128, 9, LANE // 2)]),
        (Work(256), Effort(128), [Effort()], [Effort(64)]),  # there are no weights to keep
        (Work(256, 256), Effort(), [], [Effort(128)]),  # all at once, there are no other keys
        (Work(256, 256), Effort(64), [Effort(128)], [Effort(64, keys=128)]),
        (Work(1024, 1024), Effort(512, keys=512), [Effort(512, keys=1024)], [  # all that a run sees, of two runs
            Effort(512, keys=256), Effort(256, keys=512)
        ]),
        (Work(1024, 1024), Effort(512, keys=1024), [Effort(), Effort(512)], [Effort(512, keys=512)]),
        (Work(512, 512), Effort(64, keys=64), [
            Effort(128, keys=128), Effort(64, keys=128), Effort(128, keys=64)
        ], []),
        (Work(512, 512), Effort(128), [Effort(256)], [Effort(128, keys=256)]),  # more than FEW runs are streamed
        (Work(1024, 1024, weight_bytes=1), Effort(128, keys=128), [
            Effort(256, keys=256), Effort(128, keys=256), Effort(256, keys=128)
        ], [Effort(128, keys=64), Effort(64, keys=128)]),
    ],
    ids=str,
)  # fmt: skip
def test_one_step_is_to_more_or_to_less_of_one_thing(work, effort, more, less):
    assert list(work.neighbours(effort, BM1684X)) == [more, less]


def test_what_attends_to_nothing_is_done_at_once():
    assert next(Work(4096).guesses(BM1684X)) == Effort()


def test_the_least_is_the_last_guess_whatever_it_takes():
    assert list(Work(256, 256, row_bytes=LANE).guesses(BM1684X)) == [Effort(64, keys=64)]
    assert list(Work(60, 60, row_bytes=LANE).guesses(BM1684X)) == [Effort()]
