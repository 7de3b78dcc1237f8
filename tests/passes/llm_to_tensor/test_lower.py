"""A function as a whole: the arrays compute what the model says, for one token and for many."""

from __future__ import annotations

import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir, random_tensor

load_all()


def linears(tokens: int, shape: str) -> str:
    x = f"tensor<{shape}xbf16>"
    w = "tensor<64x64xbf16>"
    return f"""
      %g = "llm.weight"() <{{name = "norm"}}> : () -> tensor<64xbf16>
      %n = "llm.rms_norm"(%x, %g) <{{eps = 1.0e-05 : f64, offset = 1.0 : f64}}> : ({x}, tensor<64xbf16>) -> {x}
      %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
      %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<64xbf16>
      %h = "llm.linear"(%n, %w, %b, %x) <{{operandSegmentSizes = array<i32: 1, 1, 1, 1>}}>
         : ({x}, {w}, tensor<64xbf16>, {x}) -> {x}
      %v = "llm.weight"() <{{name = "v"}}> : () -> {w}
      %a = "llm.gated_linear"(%h, %w, %v, %b, %b) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>}}>
         : ({x}, {w}, {w}, tensor<64xbf16>, tensor<64xbf16>) -> {x}
      %c = "llm.linear"(%a, %v, %b) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
         : ({x}, {w}, tensor<64xbf16>) -> {x}
      %d = "llm.mul"(%c) <{{value = 0.5 : f64}}> : ({x}) -> {x}
      %y = "llm.add"(%d, %h) : ({x}, {x}) -> {x}
    """


@pytest.mark.parametrize("pipeline", ["llm-to-tensor", "llm-to-tensor{tokens=64}", "llm-to-tensor{tail=1},tile-weights"])
@pytest.mark.parametrize("tokens", [1, 5, 64, 130])
def test_the_arrays_compute_what_the_model_says(tokens, pipeline):
    weights = {name: random_tensor(64, 64, seed=i, scale=0.125) for i, name in enumerate("wv")}
    weights |= {"norm": random_tensor(64, scale=0.2), "b": random_tensor(64, seed=4)}
    module, _ = parse_ir(linears(tokens, f"1x{tokens}x64"))
    as_net(module)
    function = module.functions()[0]
    x = random_tensor(1, tokens, 64, seed=9).astype(function.args[0].type.element.numpy)
    (wanted,) = interpret(function, [x], weights.__getitem__)
    PassManager(parse_pipeline(pipeline)).run(module)
    (found,) = interpret(function, [x], weights.__getitem__)
    assert compare(found, wanted).cosine > 0.9999
