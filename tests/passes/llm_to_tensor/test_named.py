"""What is read by name: rows of an embedding, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()


@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tail=1}"])
def test_an_embedding_is_looked_up_run_by_run(options):
    table, ids = random_tensor(10, 64), np.random.default_rng(0).integers(0, 10, (1, 150)).astype(np.int32)
    text = """
      %w = "llm.weight"() <{name = "w"}> : () -> tensor<10x64xbf16>
      %y = "llm.embedding"(%ids, %w) <{scale = 1.0 : f64}>
         : (tensor<1x150xi32>, tensor<10x64xbf16>) -> tensor<1x150x64xbf16>
    """
    module, _ = parse_ir(text)
    as_net(module, {2: 1, 3: 1})
    PassManager(parse_pipeline(f"llm-to-tensor{options},tile-weights,tensor-to-chip")).run(module)
    source = Materializer({"w": table}.__getitem__, {}, BM1684X.lanes)
    (found,) = ChipProgram(module.functions()[0], BM1684X, source.bytes_of).run([ids])
    np.testing.assert_array_equal(found, table.astype(found.dtype)[ids])


def rows_of(name: str, op: str, width: int, shape: str, tokens: int, element: str = "f32") -> str:
    """%rows: those of 200 rows of a table or weight that %ids ask for, in another shape."""
    table, rows = f"tensor<200x{width}x{element}>", f"tensor<1x{tokens}x{width}x{element}>"
    return f"""
      %t = "llm.{op}"() <{{name = "{name}"}}> : () -> {table}
      %g = "llm.gather_rows"(%t, %ids) : ({table}, tensor<1x{tokens}xi32>) -> {rows}
      %rows = "llm.reshape"(%g) <{{shape = array<i64: {shape}>}}> : ({rows}) -> tensor<{shape.replace(", ", "x")}x{element}>
    """


def some_ids(tokens: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(200)[None, :tokens].astype(np.int32)


@pytest.mark.parametrize("tokens", [1, 70])
@pytest.mark.parametrize("op", ["table", "weight"])
def test_rows_of_positions_are_added_to_what_every_token_has(op, tokens):
    """Learned positions: a row as wide as the hidden state for each token."""
    element = "f32" if op == "table" else "bf16"
    x, rows = f"tensor<1x{tokens}x192xbf16>", f"tensor<1x{tokens}x192x{element}>"
    text = rows_of("p", op, 192, f"1, {tokens}, 192", tokens, element) + f'%y = "llm.add"(%x, %rows) : ({x}, {rows}) -> {x}'
    table = {"p": random_tensor(200, 192, seed=3)}
    inputs = [some_ids(tokens), random_tensor(1, tokens, 192, seed=4).astype("bfloat16")]
    check_levels(text, inputs, **{f"{op}s": table})


@pytest.mark.parametrize("tokens", [1, 70])
def test_a_number_for_each_position_scales_all_heads(tokens):
    """Beside heads [1, h, tokens, d] and beside tokens [1, tokens, h, d]."""
    x, split, heads = f"tensor<1x{tokens}x192xbf16>", f"tensor<1x{tokens}x3x64xbf16>", f"tensor<1x3x{tokens}x64xbf16>"
    text = rows_of("s", "table", 1, f"1, 1, {tokens}, 1", tokens) + f"""
      %early = "llm.reshape"(%g) <{{shape = array<i64: 1, {tokens}, 1, 1>}}>
             : (tensor<1x{tokens}x1xf32>) -> tensor<1x{tokens}x1x1xf32>
      %a = "llm.reshape"(%x) <{{shape = array<i64: 1, {tokens}, 3, 64>}}> : ({x}) -> {split}
      %b = "llm.mul"(%a, %early) : ({split}, tensor<1x{tokens}x1x1xf32>) -> {split}
      %c = "llm.permute"(%b) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {heads}
      %d = "llm.mul"(%c, %rows) : ({heads}, tensor<1x1x{tokens}x1xf32>) -> {heads}
      %y = "llm.permute"(%d) <{{order = array<i64: 0, 2, 1, 3>}}> : ({heads}) -> {split}
    """
    inputs = [some_ids(tokens), random_tensor(1, tokens, 192, seed=4).astype("bfloat16")]
    check_levels(text, inputs, {"s": random_tensor(200, 1, seed=3)})


@pytest.mark.parametrize("behind", ["", '"llm.rms_norm"(%e) <{eps = 1.0e-5 : f64}>'])
@pytest.mark.parametrize("tokens", [1, 70])
def test_an_embedding_is_scaled_and_normed_before_it_is_stored(tokens, behind):
    x = f"tensor<1x{tokens}x192xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<200x192xbf16>
      %e = "llm.embedding"(%ids, %w) <{{scale = 2.5 : f64}}> : (tensor<1x{tokens}xi32>, tensor<200x192xbf16>) -> {x}
      {f"%y = {behind} : ({x}) -> {x}" if behind else ""}
    """
    check_levels(text, [some_ids(tokens)], weights={"w": random_tensor(200, 192, seed=3)})


@pytest.mark.parametrize("tokens", [1, 70])
def test_some_rows_and_columns_of_weights_are_multiplied_by(tokens):
    """Columns 64 to 192 of rows 10 to 74, and the same columns of another weight joined to them."""
    x, y = f"tensor<1x{tokens}x128xbf16>", f"tensor<1x{tokens}x96xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<100x256xbf16>
      %v = "llm.weight"() <{{name = "v"}}> : () -> tensor<32x256xbf16>
      %r = "llm.slice_weights"(%w) <{{start = 10 : i64, stop = 74 : i64}}> : (tensor<100x256xbf16>) -> tensor<64x256xbf16>
      %j = "llm.concat_weights"(%r, %v) : (tensor<64x256xbf16>, tensor<32x256xbf16>) -> tensor<96x256xbf16>
      %s = "llm.slice_weights"(%j) <{{start = 64 : i64, stop = 192 : i64, axis = 1 : i64}}>
         : (tensor<96x256xbf16>) -> tensor<96x128xbf16>
      %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<200xbf16>
      %c = "llm.slice_weights"(%b) <{{start = 50 : i64, stop = 146 : i64}}> : (tensor<200xbf16>) -> tensor<96xbf16>
      %y = "llm.linear"(%x, %s, %c) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
         : ({x}, tensor<96x128xbf16>, tensor<96xbf16>) -> {y}
    """
    weights = {name: random_tensor(*shape, seed=len(shape)) for name, shape in (("w", (100, 256)), ("v", (32, 256)), ("b", (200,)))}
    check_levels(text, [random_tensor(1, tokens, 128, seed=9).astype("bfloat16")], weights=weights)
