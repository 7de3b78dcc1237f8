"""Norms of heads, which a permute may come before or behind."""

from __future__ import annotations

import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir, random_tensor

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
