"""Norms of heads, which a permute may come before or behind, and norms with all kinds of weights."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.target.chips.bm1684x import BM1684X
from dialects import tensor
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()


def normed_heads(tokens: int, permute_first: bool) -> str:
    """A norm of the heads of x, either side of the permute that moves heads outside of tokens."""
    row, heads, outside = f"tensor<1x{tokens}x128xbf16>", f"tensor<1x{tokens}x2x64xbf16>", f"tensor<1x2x{tokens}x64xbf16>"
    x, y = ("p", outside) if permute_first else ("h", heads)
    norm = f'%n = "llm.rms_norm"(%{x}, %g) <{{eps = 1.0e-05 : f64}}> : ({y}, tensor<64xbf16>) -> {y}'
    permute = '"llm.permute"({x}) <{{order = array<i64: 0, 2, 1, 3>}}> : ({heads}) -> {outside}'
    steps = [f"%p = {permute.format(x='%h', heads=heads, outside=outside)}", norm]
    if not permute_first:
        steps = [norm, f"%p = {permute.format(x='%n', heads=heads, outside=outside)}"]
    return f"""
      %g = "llm.weight"() <{{name = "norm"}}> : () -> tensor<64xbf16>
      %h = "llm.reshape"(%x) <{{shape = array<i64: 1, {tokens}, 2, 64>}}> : ({row}) -> {heads}
      {steps[0]}
      {steps[1]}
      %b = {permute.format(x="%n" if permute_first else "%p", heads=outside, outside=heads)}
      %y = "llm.reshape"(%b) <{{shape = array<i64: 1, {tokens}, 128>}}> : ({heads}) -> {row}
    """


@pytest.mark.parametrize("permute_first", [False, True])
@pytest.mark.parametrize("tokens", [1, 96, 130])
def test_a_norm_of_heads_is_right_on_either_side_of_the_permute(tokens, permute_first):
    weight = random_tensor(64, scale=0.2) + 1
    module, _ = parse_ir(normed_heads(tokens, permute_first))
    as_net(module)
    function = module.functions()[0]
    x = random_tensor(1, tokens, 128, seed=9).astype(function.args[0].type.element.numpy)
    (wanted,) = interpret(function, [x], {"norm": weight}.__getitem__)
    PassManager(parse_pipeline("llm-to-tensor{tokens=64},tile-weights,tensor-to-chip")).run(module)
    source = Materializer({"norm": weight}.__getitem__, {})
    (found,) = ChipProgram(function, BM1684X, source.bytes_of).run([x])
    assert compare(found, wanted).cosine > 0.9999


@pytest.mark.parametrize("weights", ["", "w", "wb"])
@pytest.mark.parametrize("tokens", [1, 70])
def test_a_norm_about_the_mean(tokens, weights):
    check(*mean_norm(tokens, weights))


def mean_norm(tokens: int, weights: str) -> tuple[str, int, dict[str, np.ndarray]]:
    row, width = f"tensor<1x{tokens}x128xbf16>", "tensor<128xbf16>"
    named = "".join(f'%{name} = "llm.weight"() <{{name = "{name}"}}> : () -> {width}\n' for name in weights)
    segments = f"1, {int('w' in weights)}, {int('b' in weights)}"
    text = f"""
      {named}
      %y = "llm.layer_norm"({", ".join(["%x", *(f"%{name}" for name in weights)])})
        <{{eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: {segments}>}}> : ({", ".join([row, *(width for _ in weights)])}) -> {row}
    """
    parameters = {"w": random_tensor(128, seed=1, scale=0.2) + 1, "b": random_tensor(128, seed=2, scale=0.2)}
    return text, tokens, parameters


@pytest.mark.parametrize("weights", ["", "w", "wb"])
def test_long_rows_are_scaled_some_columns_at_a_time(weights, monkeypatch):
    """Where the room of a row is that of 40 numbers; the mean is that of the whole row."""
    monkeypatch.setattr(type(BM1684X), "work_bytes", 160)
    module = check(*mean_norm(70, weights))
    scaled = [op for op in module.functions()[0].block.ops if isinstance(op, tensor.MulOp) and op.rhs is not op.lhs]
    assert len(scaled) == 2 * 4 * (2 if "w" in weights else 1)


@pytest.mark.parametrize("permute_first", [False, True])
@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
@pytest.mark.parametrize("heads", [3, 40])
@pytest.mark.parametrize("tokens", [1, 70])
def test_each_head_may_have_weights_of_its_own(tokens, heads, kind, permute_first):
    """Of [heads, d], where heads are beside d; else as a product with a row for all tokens of a head."""
    row, split = f"tensor<1x{tokens}x{heads * 64}xbf16>", f"tensor<1x{tokens}x{heads}x64xbf16>"
    outside, weight = f"tensor<1x{heads}x{tokens}x64xbf16>", f"tensor<{heads}x64xbf16>"
    segments = ", operandSegmentSizes = array<i32: 1, 1, 0>" if kind == "layer_norm" else ""
    plain = segments.replace("1, 1, 0", "1, 0, 0")
    order = "<{order = array<i64: 0, 2, 1, 3>}>"
    norm = (
        f"""
          %p = "llm.permute"(%h) {order} : ({split}) -> {outside}
          %m = "llm.{kind}"(%p) <{{eps = 1.0e-05 : f64{plain}}}> : ({outside}) -> {outside}
          %r = "llm.reshape"(%w) <{{shape = array<i64: {heads}, 1, 64>}}> : ({weight}) -> tensor<{heads}x1x64xbf16>
          %q = "llm.mul"(%m, %r) : ({outside}, tensor<{heads}x1x64xbf16>) -> {outside}
          %n = "llm.permute"(%q) {order} : ({outside}) -> {split}
        """
        if permute_first
        else f'%n = "llm.{kind}"(%h, %w) <{{eps = 1.0e-05 : f64{segments}}}> : ({split}, {weight}) -> {split}'
    )
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {weight}
      %h = "llm.reshape"(%x) <{{shape = array<i64: 1, {tokens}, {heads}, 64>}}> : ({row}) -> {split}
      {norm}
      %y = "llm.reshape"(%n) <{{shape = array<i64: 1, {tokens}, {heads * 64}>}}> : ({split}) -> {row}
    """
    check(text, tokens, {"w": random_tensor(heads, 64, seed=1, scale=0.2) + 1}, heads * 64)


def check(text: str, tokens: int, weights: dict[str, np.ndarray], width: int = 128) -> Module:
    x = (random_tensor(1, tokens, width, seed=9) + 3).astype(ml_dtypes.bfloat16)
    return check_levels(text, [x], weights=weights)
