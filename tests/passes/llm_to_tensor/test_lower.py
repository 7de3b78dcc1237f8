"""What runs over the lanes, where values are rounded, and that the arrays compute what the model says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.diagnostics import CompileError
from compiler.target.chips.bm1684x import BM1684X
from dialects import tensor
from driver.blob import Materializer
from passes import load_all
from passes.llm_to_tensor.prefill import token_runs
from passes.manager import PassManager, parse_pipeline
from passes.ranges import even_ranges
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, check_pass, parse_ir, random_tensor

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
        state=as_net,
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
        state=as_net,
    )


@pytest.mark.parametrize(
    ("tokens", "options", "runs"),
    [(128, "tokens=64", [(0, 64), (64, 128)]), (150, "tail=1", [(0, 128), (128, 150)])],
)
def test_runs_of_tokens_are_lowered_one_after_the_other(tokens, options, runs):
    x = f"tensor<1x{tokens}x64xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
      %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {WEIGHT}) -> {x}
    """
    module, _ = parse_ir(text)
    as_net(module)
    PassManager(parse_pipeline(f"llm-to-tensor{{{options}}}")).run(module)
    ops = list(module.functions()[0].block.ops)
    one = ["slice", "load", "cast", "cast", "weight", "linear", "cast", "store"]
    assert [op.opname.removeprefix("tensor.") for op in ops] == [*one, *one, "concat", "func.return"]
    slices = [op for op in ops if isinstance(op, tensor.SliceOp)]
    assert [(op.starts[1], op.starts[1] + op.sizes[1]) for op in slices] == runs


@pytest.mark.parametrize(
    ("total", "most", "tail", "bounds"),
    [
        (1, 1, 0, [0, 1]),
        (1, 64, 1, [0, 1]),
        (64, 64, 1, [0, 64]),
        (70, 70, 0, [0, 70]),
        (70, 70, 1, [0, 64, 70]),
        (70, 64, 0, [0, 64, 70]),
        (320, 192, 0, [0, 128, 320]),  # even, not 192 and 128
        (320, 192, 1, [0, 128, 256, 320]),
        (512, 512, 1, [0, 448, 512]),
        (512, 512, 2, [0, 384, 512]),
        (512, 256, 1, [0, 192, 448, 512]),
        (500, 128, 1, [0, 64, 192, 320, 448, 500]),
    ],
)
def test_runs_are_even_and_the_tail_is_one_of_its_own(total, most, tail, bounds):
    runs = token_runs(total, most, tail, 64)
    assert [(run.start, run.stop) for run in runs] == list(itertools.pairwise(bounds))


@given(
    total=st.integers(1, 1500),
    rows=st.integers(1, 12),
    tail=st.integers(0, 2),
    lanes=st.sampled_from([8, 32, 64]),
)
def test_runs_cover_all_tokens_once_in_whole_rows_of_lanes(total, rows, tail, lanes):
    runs = token_runs(total, rows * lanes, tail, lanes)
    assert [token for run in runs for token in range(run.start, run.stop)] == list(range(total))
    assert all(run.size > 0 and run.start % lanes == 0 for run in runs)
    last = runs.pop() if tail else None
    assert last is None or -(-last.size // lanes) == min(tail, -(-total // lanes))
    assert all(run.size <= rows * lanes for run in runs)


@given(total=st.integers(1, 2000), unit=st.sampled_from([1, 7, 64]), most=st.integers(0, 40))
def test_ranges_are_as_few_and_as_even_as_whole_units_allow(total, unit, most):
    ranges = list(even_ranges(total, unit, most))
    units = -(-total // unit)
    assert [item for part in ranges for item in range(part.start, part.stop)] == list(range(total))
    assert len(ranges) == -(-units // max(1, most))
    sizes = [-(-part.size // unit) for part in ranges]
    assert max(sizes) <= max(1, most)
    assert max(sizes) - min(sizes) <= 1
    assert all(part.start % unit == 0 for part in ranges)


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


def heads(name: str, op: str, result: str) -> tuple[str, str]:
    """Ops behind a split into heads of 64 tokens, whose axes a rule could take for others."""
    x = "tensor<1x64x64x64xbf16>"
    text = f"""
      %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 64, 64, 64>}}> : (tensor<1x64x4096xbf16>) -> {x}
      %p = "llm.permute"(%h) <{{order = array<i64: 0, 2, 1, 3>}}> : ({x}) -> {x}
      %y = {op} -> {result}
    """
    return text, name


HEADS = "tensor<1x64x64x64xbf16>"
REFUSED = {
    "heads joined without a permute": heads(
        r"'llm\.reshape' op takes an operand with its tokens on axis 1, not one of #tensor\.lanes<axis = 2",
        f'"llm.reshape"(%p) <{{shape = array<i64: 1, 64, 4096>}}> : ({HEADS})',
        "tensor<1x64x4096xbf16>",
    ),
    "a slice of tokens": heads(
        r"'llm\.slice' op of tokens has no lowering",
        f'"llm.slice"(%p) <{{axis = 2 : i64, start = 0 : i64, stop = 32 : i64, step = 1 : i64}}> : ({HEADS})',
        "tensor<1x64x32x64xbf16>",
    ),
    "a sum across": heads(
        r"'llm\.add' op takes arrays of #tensor\.lanes<axis = 1.* and #tensor\.lanes<axis = 2",
        f'"llm.add"(%h, %p) : ({HEADS}, {HEADS})',
        HEADS,
    ),
    "a rotation of tokens": (
        """
          %h = "llm.reshape"(%x) <{shape = array<i64: 1, 64, 64, 64>}>
             : (tensor<1x64x4096xbf16>) -> tensor<1x64x64x64xbf16>
          %y = "llm.rope"(%h, %c, %c) <{mode = "half", rotary_dim = 64 : i64}>
             : (tensor<1x64x64x64xbf16>, tensor<1x1x64x64xf32>, tensor<1x1x64x64xf32>) -> tensor<1x64x64x64xbf16>
        """,
        r"'llm\.rope' op takes an operand with its tokens on axis 2, not one of #tensor\.lanes<axis = 1",
    ),
    "activations without an axis of 1": (
        '%y = "llm.mul"(%x) <{value = 2.0 : f64}> : (tensor<96x64xbf16>) -> tensor<96x64xbf16>',
        r"'llm\.mul' op reads an argument tensor<96x64xbf16>, expected \[1, tokens, width\]",
    ),
    "a weight where activations are needed": (
        f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {ROW}
          %y = "llm.add"(%x, %w) : ({ROW}, {ROW}) -> {ROW}
        """,
        r"'llm\.add' op takes weights or a table",
    ),
    "activations where a weight is needed": (
        f'%y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({ROW}, {WEIGHT}) -> {ROW}',
        r"'llm\.linear' op takes tensor<64x64xbf16> that is computed where it needs a weight",
    ),
    "an activation": (
        f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {WEIGHT}
          %y = "llm.gated_linear"(%x, %w, %w) <{{act = "gelu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
             : ({ROW}, {WEIGHT}, {WEIGHT}) -> {ROW}
        """,
        r"'llm\.gated_linear' op activation 'gelu' has no lowering",
    ),
    "a matrix product in f32": (
        """
          %w = "llm.weight"() <{name = "w"}> : () -> tensor<64x64xf32>
          %y = "llm.linear"(%x, %w) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
             : (tensor<1x1x64xf32>, tensor<64x64xf32>) -> tensor<1x1x64xf32> loc("model.layers.0.mlp.up_proj")
        """,
        r"layers\.0\.mlp\.up_proj: 'tensor\.linear' op makes .*f32.*, expected 16 bit",
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
        check_pass("llm-to-tensor", before=text, after=text, state=as_net)


def test_tokens_on_another_axis_than_1_are_refused_by_name():
    """Hidden states of a vision tower are [patches, width]."""
    text = '%y = "llm.mul"(%x) <{value = 2.0 : f64}> : (tensor<96x64xbf16>) -> tensor<96x64xbf16>'
    with pytest.raises(CompileError, match=r"has the tokens of 'input_0' on axis 0, only axis 1 has a lowering"):
        check_pass("llm-to-tensor", before=text, after=text, state=lambda module: as_net(module, {2: 0}))


def test_a_function_that_does_not_say_where_its_tokens_are_is_refused():
    text = f'%y = "llm.mul"(%x) <{{value = 2.0 : f64}}> : ({ROW}) -> {ROW}'
    with pytest.raises(CompileError, match=r"does not say which net it is: it has no bm\.net"):
        check_pass("llm-to-tensor", before=text, after=text)


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
