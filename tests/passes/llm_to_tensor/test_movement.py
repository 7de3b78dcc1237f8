"""Movement: items in another order, for one token and for many, down to the chip."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
@pytest.mark.parametrize("tokens", [1, 150])
def test_inputs_are_taken_in_an_order(tokens, options):
    x, y = f"tensor<1x{tokens}x192xbf16>", f"tensor<1x{tokens}x128xbf16>"
    text = f"""
      %o = "llm.indices"() <{{name = "order"}}> : () -> tensor<128xi32>
      %h = "llm.mul"(%x) <{{value = 2.0 : f64}}> : ({x}) -> {x}
      %y = "llm.take"(%h, %o) : ({x}, tensor<128xi32>) -> {y}
    """
    module, _ = parse_ir(text)
    as_net(module)
    function = module.functions()[0]
    order = np.random.default_rng(2).permutation(192)[:128].astype(np.int32)
    inputs = [random_tensor(1, tokens, 192).astype(ml_dtypes.bfloat16)]
    (wanted,) = interpret(function, inputs, {"order": order}.__getitem__)
    np.testing.assert_array_equal(wanted, 2 * inputs[0][..., order])
    PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
    (found,) = interpret(function, inputs, {"order": order}.__getitem__)
    np.testing.assert_array_equal(found, wanted)
    PassManager(parse_pipeline("tensor-to-chip")).run(module)
    source = Materializer({"order": order}.__getitem__, {}).bytes_of
    (found,) = ChipProgram(function, BM1684X, source).run(inputs)
    np.testing.assert_array_equal(found, wanted)


def heads_and_shared(tokens: int, wider: int) -> str:
    """Keys [1, 3, tokens, 48 + 16] of a part of each head and one that is the same for all, filled up."""
    x, split, heads = f"tensor<1x{tokens}x208xbf16>", f"tensor<1x{tokens}x3x64xbf16>", f"tensor<1x3x{tokens}x64xbf16>"
    own, shared, all_, keys, filled = (f"tensor<1x{n}x{tokens}x{d}xbf16>" for n, d in ((3, 48), (1, 16), (3, 16), (3, 64), (3, wider)))
    return f"""
      %a = "llm.slice"(%x) <{{axis = 2 : i64, start = 0 : i64, stop = 192 : i64}}> : ({x}) -> tensor<1x{tokens}x192xbf16>
      %b = "llm.reshape"(%a) <{{shape = array<i64: 1, {tokens}, 3, 64>}}> : (tensor<1x{tokens}x192xbf16>) -> {split}
      %c = "llm.permute"(%b) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {heads}
      %own = "llm.slice"(%c) <{{axis = 3 : i64, start = 16 : i64, stop = 64 : i64}}> : ({heads}) -> {own}
      %d = "llm.slice"(%x) <{{axis = 2 : i64, start = 192 : i64, stop = 208 : i64}}> : ({x}) -> tensor<1x{tokens}x16xbf16>
      %shared = "llm.reshape"(%d) <{{shape = array<i64: 1, 1, {tokens}, 16>}}> : (tensor<1x{tokens}x16xbf16>) -> {shared}
      %all = "llm.broadcast"(%shared) <{{shape = array<i64: 1, 3, {tokens}, 16>}}> : ({shared}) -> {all_}
      %keys = "llm.concat"(%own, %all) <{{axis = 3 : i64}}> : ({own}, {all_}) -> {keys}
      %filled = "llm.pad"(%keys) <{{size = {wider} : i64}}> : ({keys}) -> {filled}
      %y = "llm.permute"(%filled) <{{order = array<i64: 0, 2, 1, 3>}}> : ({filled}) -> tensor<1x{tokens}x3x{wider}xbf16>
    """


@pytest.mark.parametrize("wider", [64, 80])
@pytest.mark.parametrize(("tokens", "options"), [(1, ""), (150, ""), (150, "{tokens=64}")])
def test_parts_of_heads_are_joined_with_one_that_they_share(tokens, options, wider):
    x = random_tensor(1, tokens, 208).astype("bfloat16")
    check_levels(heads_and_shared(tokens, wider), [x], options=options)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("tokens", [1, 150])
def test_groups_of_rows_are_cut_into_queries_and_keys(tokens, width):
    """[tokens, 3, 2 + 1, d]: two queries and a key for each of three groups, joined again as heads."""
    x, groups = f"tensor<1x{tokens}x{9 * width}xbf16>", f"tensor<1x{tokens}x3x3x{width}xbf16>"
    two, one = f"tensor<1x{tokens}x3x2x{width}xbf16>", f"tensor<1x{tokens}x3x1x{width}xbf16>"
    queries, keys = f"tensor<1x{tokens}x6x{width}xbf16>", f"tensor<1x{tokens}x3x{width}xbf16>"
    text = f"""
      %a = "llm.reshape"(%x) <{{shape = array<i64: 1, {tokens}, 3, 3, {width}>}}> : ({x}) -> {groups}
      %b = "llm.slice"(%a) <{{axis = 3 : i64, start = 0 : i64, stop = 2 : i64}}> : ({groups}) -> {two}
      %c = "llm.slice"(%a) <{{axis = 3 : i64, start = 2 : i64, stop = 3 : i64}}> : ({groups}) -> {one}
      %q = "llm.reshape"(%b) <{{shape = array<i64: 1, {tokens}, 6, {width}>}}> : ({two}) -> {queries}
      %k = "llm.reshape"(%c) <{{shape = array<i64: 1, {tokens}, 3, {width}>}}> : ({one}) -> {keys}
      %n = "llm.rms_norm"(%q) <{{eps = 1.0e-6 : f64}}> : ({queries}) -> {queries}
      %y = "llm.neg"(%k) : ({keys}) -> {keys}
    """
    check_levels(text, [random_tensor(1, tokens, 9 * width).astype("bfloat16")])
