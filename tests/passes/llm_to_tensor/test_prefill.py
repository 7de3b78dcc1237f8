"""Many tokens: tokens over the lanes, in runs, and which of them see which, down to the chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dialects import tensor
from passes.manager import PassManager, parse_pipeline
from tests.helpers import as_net, check_pass, parse_ir, random_tensor
from tests.passes.llm_to_tensor.attending import Attention, causal, hidden_unless, loads_of
from tests.passes.llm_to_tensor.written import WEIGHT, half, wide

TOKENS = "#tensor.lanes<axis = 1>"


def test_many_tokens_have_tokens_over_the_lanes():
    x, shape = "tensor<1x70x64xbf16>", "1x70x64"
    check_pass(
        "llm-to-tensor",
        before=f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
          %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {WEIGHT}) -> {x}
        """,
        after=f"""
          %0 = "tensor.load"(%x) : ({x}) -> {half(TOKENS, shape)}
          %1 = "tensor.cast"(%0) : ({half(TOKENS, shape)}) -> {wide(TOKENS, shape)}
          %2 = "tensor.cast"(%1) : ({wide(TOKENS, shape)}) -> {half(TOKENS, shape)}
          %3 = "tensor.weight"() <{{sources = ["w"]}}> : () -> {WEIGHT}
          %4 = "tensor.linear"(%2, %3) : ({half(TOKENS, shape)}, {WEIGHT}) -> {wide(TOKENS, shape)}
          %5 = "tensor.cast"(%4) : ({wide(TOKENS, shape)}) -> {half(TOKENS, shape)}
          %6 = "tensor.store"(%5) : ({half(TOKENS, shape)}) -> {x}
        """,
        state=as_net,
    )


@pytest.mark.parametrize(
    ("tokens", "options", "runs"),
    [
        (128, "tokens=64", [(0, 64), (64, 128)]),
        (150, "tail=1", [(0, 128), (128, 150)]),
        (250, "tokens=64 runs=1,3", [(64, 128), (192, 250)]),
        (128, "tokens=64 runs=4", [(0, 64), (64, 128)]),
    ],
)
def test_runs_of_tokens_are_lowered_one_after_the_other(tokens, options, runs):
    x = f"tensor<1x{tokens}x64xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
      %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {WEIGHT}) -> {x}
    """
    module, _ = parse_ir(text)
    as_net(module)
    PassManager(parse_pipeline(f"llm-to-tensor{{{options}}}"), verify_each="runs" not in options).run(module)
    ops = list(module.functions()[0].block.ops)
    one = ["slice", "load", "cast", "cast", "weight", "linear", "cast", "store"]
    assert [op.opname.removeprefix("tensor.") for op in ops] == [*one, *one, "concat", "func.return"]
    slices = [op for op in ops if isinstance(op, tensor.SliceOp)]
    assert [(op.starts[1], op.starts[1] + op.sizes[1]) for op in slices] == runs


@pytest.mark.parametrize(("tokens", "options"), [(5, ""), (64, ""), (150, "{tokens=64}"), (130, "{tail=1}")])
def test_many_tokens_see_those_before(tokens, options):
    Attention(tokens).check(causal(tokens), options)


@pytest.mark.parametrize("kind", ["masked", "all"])
@pytest.mark.parametrize(("tokens", "options"), [(64, ""), (150, ""), (150, "{tokens=64}"), (128, "{tail=1}")])
def test_later_keys_are_seen_where_the_mask_shows_them(kind, tokens, options):
    """Each query sees a third of the keys, before it and after it, also those of later runs of tokens."""
    mask = hidden_unless(random_tensor(tokens, tokens, seed=5) > 0.4)
    Attention(tokens, visible=f'kind = "{kind}"').check(mask, options)


@pytest.mark.parametrize(("size", "options"), [(1, ""), (70, ""), (100, "{tokens=128}"), (500, "{tail=1}")])
def test_a_window_sees_no_further_back(size, options):
    behind = np.arange(300)[:, None] - np.arange(300)
    lowered = Attention(300, visible=f'kind = "window", size = {size}').check(
        hidden_unless((behind >= 0) & (behind < size)), options
    )
    columns = {op.source.type.shape[-1] for op in loads_of(lowered)} - {512}  # the width of x
    assert max(columns) <= size + 2 * 64


@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tail=1}"])
@pytest.mark.parametrize(("kind", "size"), [("window", 1), ("window", 70), ("window", 200), ("chunk", 64), ("chunk", 30), ("chunk", 100)])
def test_a_net_hides_from_a_causal_mask_what_lies_too_far_back(kind, size, options):
    """The last rows are padding, which sees nothing; what is not hidden gives other results."""
    tokens = 240
    position = np.arange(tokens)
    first = np.maximum(position - size + 1, 0) if kind == "window" else position // size * size
    seen = np.tril(np.ones((tokens, tokens), bool)) & (position < 230)[:, None]
    attention = Attention(tokens, visible=f'kind = "{kind}", size = {size}', first=tuple(first.tolist()))
    lowered = attention.check(hidden_unless(seen), options)
    columns = {op.source.type.shape[-1] for op in loads_of(lowered)} - {512}  # the width of x
    assert max(columns) <= size + 2 * 64
    shown = replace(attention, visible='kind = "causal"')  # only the net hides
    assert (shown.llm_result(causal(tokens)) == replace(shown, first=()).llm_result(causal(tokens))).all() == (size >= tokens)
