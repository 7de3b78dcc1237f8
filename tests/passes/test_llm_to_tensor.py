"""What runs over the lanes, where values are rounded, and that the arrays compute what the model says."""

from __future__ import annotations

import pytest

import runtime_sim.llm
import runtime_sim.tensor  # noqa: F401  (registers the rules)
from compiler.diagnostics import CompileError
from compiler.pass_manager import PassManager, parse_pipeline
from passes import load_all
from runtime_sim.compare import compare
from runtime_sim.rules import interpret
from tests.helpers import check_pass, parse_ir, random_tensor

load_all()

ROW = "tensor<1x1x64xbf16>"  # one token, in DDR
PACKED, SLOTS = "#tensor.lanes<axis = 2, compact = true>", "#tensor.lanes<axis = 2>"
TOKENS = "#tensor.lanes<axis = 1>"
WEIGHT = "tensor<64x64xbf16>"


def wide(layout: str, shape: str = "1x1x64") -> str:
    return f"tensor<{shape}xf32, {layout}>"


def half(layout: str, shape: str = "1x1x64") -> str:
    return f"tensor<{shape}xbf16, {layout}>"


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
    )


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
    )


def test_runs_of_tokens_are_lowered_one_after_the_other():
    x = "tensor<1x128x64xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
      %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {WEIGHT}) -> {x}
    """
    module, _ = parse_ir(text)
    PassManager(parse_pipeline("llm-to-tensor{tokens=64}")).run(module)
    names = [op.opname.removeprefix("tensor.") for op in module.functions()[0].block.ops]
    one = ["slice", "load", "cast", "cast", "weight", "linear", "cast", "store"]
    assert names == [*one, *one, "concat", "func.return"]


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
      %a = "llm.gated_linear"(%h, %w, %v) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
         : ({x}, {w}, {w}) -> {x}
      %c = "llm.linear"(%a, %v, %b) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
         : ({x}, {w}, tensor<64xbf16>) -> {x}
      %d = "llm.mul"(%c) <{{value = 0.5 : f64}}> : ({x}) -> {x}
      %y = "llm.add"(%d, %h) : ({x}, {x}) -> {x}
    """


@pytest.mark.parametrize("pipeline", ["llm-to-tensor", "llm-to-tensor{tokens=64}", "llm-to-tensor,tile-weights"])
@pytest.mark.parametrize("tokens", [1, 5, 64, 130])
def test_the_arrays_compute_what_the_model_says(tokens, pipeline):
    weights = {name: random_tensor(64, 64, seed=i, scale=0.125) for i, name in enumerate("wv")}
    weights |= {"norm": random_tensor(64, scale=0.2), "b": random_tensor(64, seed=4)}
    module, _ = parse_ir(linears(tokens, f"1x{tokens}x64"))
    function = module.functions()[0]
    x = random_tensor(1, tokens, 64, seed=9).astype(function.args[0].type.element.numpy)
    (wanted,) = interpret(function, [x], weights.__getitem__)
    PassManager(parse_pipeline(pipeline)).run(module)
    (found,) = interpret(function, [x], weights.__getitem__)
    assert compare(found, wanted).cosine > 0.9999


REFUSED = {
    "an activation": (
        f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
          %y = "llm.gated_linear"(%x, %w, %w) <{{act = "gelu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
             : ({ROW}, {WEIGHT}, {WEIGHT}) -> {ROW}
        """,
        r"'llm\.gated_linear' op activation 'gelu' or a bias has no lowering",
    ),
    "an op without a rule": (
        f'%y = "llm.pow"(%x) <{{exponent = 3.0 : f64}}> : ({ROW}) -> {ROW}',
        r"'llm\.pow' op has no lowering to the tensor dialect",
    ),
    "a rotation": (
        """
          %y = "llm.rope"(%x, %c, %c) <{mode = "interleaved", rotary_dim = 64 : i64}>
             : (tensor<1x2x1x64xbf16>, tensor<1x1x1x64xf32>, tensor<1x1x1x64xf32>) -> tensor<1x2x1x64xbf16>
        """,
        r"'llm\.rope' op mode 'interleaved' on 64 of 64 has no lowering",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_lowering_is_named(case):
    text, message = REFUSED[case]
    with pytest.raises(CompileError, match=message):
        check_pass("llm-to-tensor", before=text, after=text)
