"""One token: features over the lanes, its history and itself in attention, down to the chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dialects import tensor
from passes.llm_to_tensor.decode import heads_of_lane_rows
from tests.helpers import as_net, check_pass, random_tensor
from tests.passes.llm_to_tensor.attending import MASKED, Attention, causal, hidden_unless, loads_of, padded
from tests.passes.llm_to_tensor.written import ROW, WEIGHT, half, wide

PACKED, SLOTS = "#tensor.lanes<axis = 2, compact = true>", "#tensor.lanes<axis = 2>"


def test_one_token_has_its_features_over_the_lanes_and_adds_to_the_residual():
    check_pass(
        "llm-to-tensor",
        before=f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
          %y = "llm.linear"(%x, %w, %r) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}>
             : ({ROW}, {WEIGHT}, {ROW}) -> {ROW}
        """,
        after=f"""
          %0 = "tensor.load"(%x) : ({ROW}) -> {half(PACKED)}
          %1 = "tensor.cast"(%0) : ({half(PACKED)}) -> {wide(SLOTS)}
          %2 = "tensor.cast"(%1) : ({wide(SLOTS)}) -> {half(SLOTS)}
          %3 = "tensor.weight"() <{{sources = ["w"]}}> : () -> {WEIGHT}
          %4 = "tensor.load"(%r) : ({ROW}) -> {half(PACKED)}
          %5 = "tensor.cast"(%4) : ({half(PACKED)}) -> {wide(SLOTS)}
          %6 = "tensor.linear"(%2, %3, %5) : ({half(SLOTS)}, {WEIGHT}, {wide(SLOTS)}) -> {wide(SLOTS)}
          %7 = "tensor.cast"(%6) : ({wide(SLOTS)}) -> {half(PACKED)}
          %8 = "tensor.store"(%7) : ({half(PACKED)}) -> {ROW}
        """,
        state=as_net,
    )



@pytest.mark.parametrize("history", [5, 64, 100, 200, 512])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width"), [(4, 2, 64), (6, 3, 128), (2, 1, 64), (71, 1, 64), (96, 8, 64), (80, 80, 20)]
)
def test_one_token_sees_its_history_and_itself(history, heads, kv_heads, width):
    Attention(1, heads, kv_heads, width, history).check(padded(history, history * 3 // 4))


@pytest.mark.parametrize("keys", [64, 192])
@pytest.mark.parametrize("history", [64, 200, 512])
@pytest.mark.parametrize(
    "attention",
    [
        Attention(1),
        Attention(1, 6, 3, 128),
        Attention(1, 71, 1),
        Attention(1, 96, 8, value_width=32),
        Attention(1, 6, 2, softcap=2.0),
        Attention(1, 6, 2, sinks=True, softcap=2.0),
    ],
)
def test_a_history_may_come_in_blocks(attention, history, keys):
    attention = replace(attention, history=history)
    attention.check(padded(history, history * 3 // 4), f"{{keys={keys}}}")
    attention.check(hidden_unless(random_tensor(history + 1, seed=6) > 0), f"{{keys={keys}}}")


@pytest.mark.parametrize("used", [0, 3, 70, 199])
@pytest.mark.parametrize("size", [1, 30, 100])
def test_blocks_hide_what_lies_too_far_back(used, size):
    first = np.maximum(np.arange(201) - size + 1, 0)
    attention = Attention(1, history=200, visible='kind = "masked"', first=tuple(first.tolist()))
    attention.check(padded(200, used), "{keys=64}", position=used)


@pytest.mark.parametrize("lowest", [MASKED, -1e4, np.finfo(np.float32).min, -5.6e29])
def test_a_step_that_sees_nothing_takes_the_mean_of_all_blocks(lowest):
    mask = "bf16" if lowest > -1e30 else "f32"
    Attention(1, history=199, mask=mask).check(np.full(200, lowest), "{keys=64}")


@pytest.mark.parametrize("width", [20, 32, 80, 96])
def test_heads_that_are_no_whole_rows_of_lanes_are_split_and_joined_in_ddr(width):
    attention = Attention(1, heads=8, kv_heads=4, width=width, history=100)
    lowered = attention.check(padded(100, 60))
    stores = [op for op in lowered.functions()[0].block.ops if isinstance(op, tensor.StoreOp)]
    assert len(stores) == 3  # q, k and v together, what is joined, and the result
    Attention(70, heads=8, kv_heads=4, width=width).check(causal(70))


def test_one_token_without_a_history_sees_itself():
    Attention(1).check(np.zeros(1))


@pytest.mark.parametrize("used", [0, 3, 40, 99])
@pytest.mark.parametrize(("kind", "size"), [("window", 1), ("window", 30), ("window", 200), ("chunk", 32), ("chunk", 7)])
def test_one_token_sees_no_further_back_than_its_position_allows(kind, size, used):
    position = np.arange(101)
    first = np.maximum(position - size + 1, 0) if kind == "window" else position // size * size
    attention = Attention(1, history=100, visible='kind = "masked"', first=tuple(first.tolist()))
    attention.check(padded(100, used), position=used)
    keys = np.arange(101)
    shown = ((keys >= first[used]) & (keys < used)) | (keys == 100)
    found = attention.llm_result(padded(100, used), used)
    np.testing.assert_array_equal(found, replace(attention, first=()).llm_result(hidden_unless(shown)))


@pytest.mark.parametrize(
    ("heads", "kv_heads"), [(71, 1), (64, 1), (96, 8), (128, 128), (130, 10), (5, 5), (1, 1)]
)
def test_heads_of_any_count_share_keys_in_any_groups(heads, kv_heads):
    """Also where the heads of a group lie in two rows of lanes."""
    Attention(1, heads, kv_heads, history=70).check(padded(70, 50))


@pytest.mark.parametrize("options", ["", "{keys=64}"])
@pytest.mark.parametrize(
    ("groups", "before"), [((3, 2), 0), ((1, 3), 1), ((2, 2), 1), ((4,), 2), ((70, 3, 60), 0), ((1, 5), 3)]
)
def test_some_heads_read_some_of_a_history_in_uneven_groups(groups, before, options):
    attention = Attention(1, sum(groups), len(groups), history=150, groups=groups, before=before, sinks=True)
    lowered = attention.check(padded(150, 100), options)
    most = 150 * len(groups) * attention.width
    assert max(op.source.type.size for op in loads_of(lowered)) <= most  # nothing of other heads


def test_heads_are_cut_where_a_row_of_lanes_ends():
    cut = [(head, (some.start, some.stop)) for head, some in heads_of_lane_rows((75, 75), 64)]
    assert cut == [(0, (0, 64)), (0, (64, 75)), (1, (75, 128)), (1, (128, 150))]
    assert len(list(heads_of_lane_rows((8,) * 8, 64))) == 8
    cut = [(head, (some.start, some.stop)) for head, some in heads_of_lane_rows((2, 63, 1), 64)]
    assert cut == [(0, (0, 2)), (1, (2, 64)), (1, (64, 65)), (2, (65, 66))]
