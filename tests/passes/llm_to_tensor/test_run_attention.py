"""Attention of many tokens to blocks of keys: which meet which, and what is hidden, down to the chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import CompileError
from compiler.ir.types import F32
from dialects import chip, tensor
from passes.manager import PassManager, parse_pipeline
from tests.compare import compare
from tests.helpers import random_tensor
from tests.passes.llm_to_tensor import attending
from tests.passes.llm_to_tensor.attending import MASKED, Attention, causal, hidden_unless, loads_of, segments

BLOCKS = ["{tokens=64 keys=64}", "{tokens=64 keys=128}", "{tokens=128 keys=64}", "{tokens=64 keys=64 tail=1}", "{keys=64}"]
HEADS = {
    "groups": Attention(300, 6, 2),
    "one group": Attention(200, 7, 1),
    "a kv head each": Attention(200, 5, 5),
    "more heads than lanes": Attention(130, 71, 1, width=32),
    "values of a width of their own": Attention(300, value_width=32),
    "a cap": Attention(200, softcap=2.0),
    "sinks": Attention(200, sinks=True),
    "uneven groups": Attention(150, 5, 2, groups=(3, 2)),
    "uneven groups with sinks": Attention(150, 7, 3, groups=(1, 4, 2), sinks=True),
    "sinks and a cap": Attention(200, sinks=True, softcap=2.0),
}


@pytest.mark.parametrize("options", BLOCKS)
@pytest.mark.parametrize("tokens", [5, 64, 150, 300])
def test_many_tokens_see_those_before(tokens, options):
    Attention(tokens).check(causal(tokens), options)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("options", BLOCKS[:3])
def test_heads_of_all_kinds_meet_blocks(heads, options):
    HEADS[heads].check(causal(HEADS[heads].tokens), options)


def test_sinks_may_be_far_above_all_scores(monkeypatch):
    """Farther than f32 has powers of two: such a head sees next to nothing, and the others as ever."""
    monkeypatch.setattr(attending, "SINKS", np.where(np.arange(256) == 0, np.float32(120), attending.SINKS))
    Attention(150, sinks=True).check(causal(150), BLOCKS[0])


@pytest.mark.parametrize("options", BLOCKS)
@pytest.mark.parametrize("kind", ["masked", "all"])
def test_later_keys_are_seen_where_the_mask_shows_them(kind, options):
    mask = hidden_unless(random_tensor(150, 150, seed=5) > 0.4)
    Attention(150, visible=f'kind = "{kind}"').check(mask, options)


@pytest.mark.parametrize("options", BLOCKS[:3])
@pytest.mark.parametrize("mask", [MASKED, -1e4, np.finfo(np.float32).min, -np.inf, -5.6e29])
def test_rows_that_are_masked_everywhere_stay_finite(mask, options):
    """Those of padding; holes and rows whose first keys are hidden are right."""
    seen = np.tril(random_tensor(200, 200, seed=6) > 0) & (np.arange(200) >= 70)
    seen[np.arange(70, 190), np.arange(70, 190)] = True
    seen[190:] = False
    element = "bf16" if mask > -1e30 else "f32"
    with np.errstate(invalid="ignore"):  # of the llm level's own rows of -inf
        Attention(200, mask=element).check(np.where(seen, 0, mask), options, rows=slice(70, 190))


class Loud(Attention):
    """The key of the fourth token has scores of up to 80 powers of two."""

    def inputs(self, module, mask, position=0):
        found = super().inputs(module, mask, position)
        (x,) = [each for each in found if each.shape == (1, self.tokens, self.all_columns)]
        x[:, 3] *= 16
        return found


@pytest.mark.parametrize("options", BLOCKS)
def test_a_hidden_key_weighs_nothing_however_large_its_scores(options):
    seen = np.tril(np.ones((200, 200), bool))
    seen[64:, 3] = False
    Loud(200).check(hidden_unless(seen), options, rows=slice(64, 200))


@pytest.mark.parametrize("options", BLOCKS[:3])
def test_queries_that_see_no_key_of_a_run_are_finite(options):
    seen = np.tril(np.ones((200, 200), bool))
    seen[130:] = False
    Attention(200).check(hidden_unless(seen), options, rows=slice(0, 130))


@pytest.mark.parametrize(
    ("attention", "hidden_by_weight"),
    [
        (Attention(192), True),
        (Attention(192, mask="f32"), False),
        (Attention(192, visible='kind = "masked"'), False),
        (Attention(192, visible='kind = "all"'), False),
        (Attention(192, visible='kind = "window", size = 128'), False),
    ],
)
def test_keys_that_the_order_of_tokens_shows_are_hidden_by_their_weights(attention, hidden_by_weight):
    """Three runs of a row of lanes, four query heads in tiles of two: one block before the second, two
    before the third.
    """
    module = attention.module()
    PassManager(parse_pipeline("llm-to-tensor{tokens=64 keys=64}")).run(module)
    ops = module.functions()[0].block.ops
    hidden = [op for op in ops if isinstance(op, tensor.SoftmaxWeightsOp) and op.hiding is not None]
    masks = [op for op in ops if isinstance(op, tensor.HidingOp)]
    assert (len(hidden), len(masks)) == ((6, 3) if hidden_by_weight else (0, 0))


@pytest.mark.parametrize("options", BLOCKS[:4])
@pytest.mark.parametrize(("kind", "size"), [("window", 1), ("window", 70), ("window", 130), ("chunk", 64), ("chunk", 100)])
def test_a_net_hides_from_a_causal_mask_what_lies_too_far_back(kind, size, options):
    position = np.arange(240)
    first = np.maximum(position - size + 1, 0) if kind == "window" else position // size * size
    seen = np.tril(np.ones((240, 240), bool)) & (position < 230)[:, None]
    attention = Attention(240, visible=f'kind = "{kind}", size = {size}', first=tuple(first.tolist()))
    attention.check(hidden_unless(seen), options)


def test_blocks_out_of_sight_are_not_loaded():
    """Of the keys behind its own, a run of 64 tokens in a window of 64 sees those of one other run."""
    window = Attention(320, visible='kind = "window", size = 64')
    behind = np.arange(320)[:, None] - np.arange(320)
    mask = hidden_unless((behind >= 0) & (behind < 64))
    lowered = window.check(mask, "{tokens=64 keys=64}")
    masks = [op for op in loads_of(lowered) if op.source.type.shape[-1] == 64 and op.source.type.rank == 3 and op.source.type.shape[0] == 1]
    assert len(masks) == 5 + 4
    causal_ = replace(window, visible='kind = "causal"').check(causal(320), "{tokens=64 keys=64}")
    assert len(loads_of(causal_)) > len(loads_of(lowered))


def test_scores_take_little_room_however_many_keys_there_are():
    lowered = Attention(512, 8, 2).check(causal(512), "{tokens=256 keys=128}", on_chip=False)
    scores = [op.y.type for op in lowered.functions()[0].block.ops if isinstance(op, tensor.MatmulOp) and op.transpose_b]
    rows = {type_.shape for type_ in scores}
    assert all(type_.element == F32 and type_.shape[2] <= 128 for type_ in scores), rows


@pytest.mark.parametrize(("options", "earlier"), [("{tokens=64 keys=128}", 4), ("{tokens=128 keys=128}", 1)])
def test_all_heads_that_share_keys_meet_a_block_in_one_product(options, earlier):
    """Blocks of four runs, some of which have keys of two, or of two."""
    attention = Attention(256, 4, 2)
    module = attention.module()
    PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
    PassManager(parse_pipeline("tensor-to-chip")).run(module)
    ops = [op for op in module.functions()[0].block.ops if isinstance(op, chip.MatmulOp)]
    assert len([op for op in ops if op.kind == "nn" and op.accumulate]) == 2 * earlier


def test_heads_that_share_keys_stay_together_where_that_takes_twice_the_room():
    """Room is for 8 rows of so many scores; nine runs meet their own keys, and all but the first one block."""
    for heads, tiles in {12: 1, 17: 2}.items():
        module = Attention(576, heads, 1).module()
        PassManager(parse_pipeline("llm-to-tensor{tokens=64 keys=512}")).run(module)
        products = [op for op in module.functions()[0].block.ops if isinstance(op, tensor.MatmulOp)]
        assert len(products) == 2 * (9 + 8) * tiles


@pytest.mark.parametrize(("scores", "tiles"), [(0, 1), (16384, 1), (8192, 2), (4096, 4), (1024, 16)])
@pytest.mark.parametrize("keys", [0, 256])
def test_half_a_tile_of_scores_becomes_weights_at_a_time(keys, scores, tiles):
    """Two runs of 4 rows of lanes and 8 heads, the second of which meets a block of the first; or all at once."""
    lowered = Attention(512, 8, 1).check(causal(512), f"{{tokens=256 keys={keys} scores={scores}}}", on_chip=False)
    ops = lowered.functions()[0].block.ops
    weights = [op.y.type.shape for op in ops if isinstance(op, tensor.SoftmaxWeightsOp)]
    assert max(heads * rows * columns for heads, rows, columns in weights) * 4 <= 64 * (scores or 16384)
    if keys:
        met = [op for op in ops if isinstance(op, tensor.MatmulOp) and op.accumulator is not None]
        assert len(met) == tiles


TOWER = Attention(200, 3, 3, width=80, mask="f32", visible='kind = "all"')
BAND = replace(TOWER, visible='kind = "band", size = 64')
ALL_WAYS = ["", "{tokens=64}", *BLOCKS, "{tokens=128 keys=256}", "{tokens=64 keys=192}"]


@pytest.mark.parametrize("options", ALL_WAYS)
@pytest.mark.parametrize("element", ["bf16", "f16"])
def test_queries_of_all_tokens_see_all_keys(element, options):
    """Without a mask there is no instruction for one; 200 tokens fill no row of lanes."""
    module = replace(TOWER, mask="", element=element).check(np.zeros(0), options)
    assert all(op.source.type.shape[-1] != 200 for op in loads_of(module))


@pytest.mark.parametrize("options", ALL_WAYS)
@pytest.mark.parametrize("sizes", [[64, 64, 64], [40, 64, 9, 31, 50], [63, 64, 64], [64, 30]])
def test_segments_that_fit_a_band_are_met_wherever_they_begin(sizes, options):
    """A client's mask rules in the band, and rows of padding see nothing; see `llm.Visible`. The first and last
    row of each segment see the farthest.
    """
    mask, real = segments(200, sizes), slice(0, sum(sizes))
    stops = np.cumsum(sizes)
    for edges in (stops - sizes, stops - 1):
        BAND.check(mask, options, on_chip=False, rows=edges)
    BAND.check(mask, options, rows=real)
    assert compare(BAND.llm_result(mask)[:, real], TOWER.llm_result(mask)[:, real]).differing == 0


@pytest.mark.parametrize("width", [64, 72, 80, 88, 128])
@pytest.mark.parametrize("visible", ['kind = "all"', 'kind = "band", size = 64'])
@pytest.mark.parametrize("options", ["{tokens=64}", "{tokens=128 keys=64}", "{tokens=64 keys=192}"])
def test_heads_of_towers_have_any_width(width, visible, options):
    replace(TOWER, width=width, visible=visible).check(segments(200, [50, 64, 60]), options, rows=slice(0, 174))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_towers_of_all_sizes(data):
    tokens, size = data.draw(st.integers(2, 330)), data.draw(st.integers(1, 130))
    sizes = data.draw(st.lists(st.integers(1, size), min_size=1, max_size=8))
    kind = data.draw(st.sampled_from(['kind = "all"', f'kind = "band", size = {size}', 'kind = "masked"']))
    element, mask = data.draw(st.sampled_from([("bf16", "f32"), ("f16", "f32"), ("bf16", "bf16")]))
    runs, keys = data.draw(st.sampled_from([0, 64, 128, 256])), data.draw(st.sampled_from([0, 64, 128, 192]))
    heads, width = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([16, 24, 72, 80]))
    attention = Attention(tokens, heads, heads, width, mask=mask, visible=kind, element=element)
    attention.check(segments(tokens, sizes), f"{{tokens={runs} keys={keys}}}", on_chip=False, rows=slice(0, sum(sizes)))


def test_a_block_may_be_one_key():
    attention = Attention(65, 2, 2, 16, mask="f32", visible='kind = "all"')
    attention.check(segments(65, [65]), "{keys=64}")


def test_a_row_of_lanes_meets_the_keys_of_a_band_at_once():
    """Four rows of lanes, those in the middle with 64 + 2 * 63 keys, those at the ends with fewer."""
    module = replace(BAND, tokens=256).check(segments(256, [64] * 4), "{tokens=128 keys=192}")
    masks = [op.source.type.shape for op in loads_of(module) if op.source.type.element == F32]
    assert masks == [(1, 64, 127), (1, 64, 191), (1, 64, 191), (1, 64, 128)]


def test_what_no_mask_hides_and_no_order_shows_has_no_lowering():
    with pytest.raises(CompileError, match="without a mask"):
        replace(BAND, mask="").check(np.zeros(0))


def test_tiles_that_see_nothing_of_a_block_pass_it_over():
    """In a run of 128 with a window of 64, only the first row of lanes of queries sees keys before the run."""
    module = Attention(256, 64, 1, width=32, visible='kind = "window", size = 64').module()
    PassManager(parse_pipeline("llm-to-tensor{tokens=128 keys=64}")).run(module)
    products = [op for op in module.functions()[0].block.ops if isinstance(op, tensor.MatmulOp)]
    assert len(products) == 2 * (2 * (1 + 2) + 1)
