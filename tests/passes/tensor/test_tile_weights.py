"""Tiles of weights: what is cut where, and that the cut computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import UserError
from compiler.ir.types import BF16, F16, F32
from compiler.target.chips import chip
from compiler.weights.scheme import Scheme
from dialects import tensor
from passes.manager import PassManager, parse_pipeline
from passes.tensor import tile_weights
from tests.compare import compare
from tests.helpers import as_net, check_pass, parse_ir
from tests.passes.programs import PLACING, SPEC, Program, array, slots

X, Y = "tensor<1x64x128xbf16, #tensor.lanes<axis = 1>>", "tensor<1x64x256xf32, #tensor.lanes<axis = 1>>"
LOCAL = "#tensor.lanes<axis = 0>"


def linear(types: str, start: str = "") -> str:
    return f'%y = "tensor.linear"(%x, %w{start}) : {types}'


def weight(rows: int, columns: int, name: str = "w") -> str:
    return f'%{name} = "tensor.weight"() <{{sources = ["{name}"]}}> : () -> tensor<{rows}x{columns}xbf16>'


def tile(index: int, rows: int, columns: int, row: int = 0, column: int = 0) -> str:
    """%t<index>: a rectangle of the parameter w, packed as it is and loaded."""
    kind = f"rows = {rows}, columns = {columns}, element = bf16"
    packed = f"!tensor.packed<{kind}, local = false>"
    local = f"!tensor.packed<{kind}, local = true>"
    return f"""
      %p{index} = "tensor.packed_weight"() <{{sources = ["w"], row = {row} : i64, column = {column} : i64, each = false}}>
         : () -> {packed}
      %l{index} = "tensor.load"(%p{index}) : ({packed}) -> {local}
      %t{index} = "tensor.dequantize"(%l{index}) : ({local}) -> tensor<{rows}x{columns}xbf16, {LOCAL}>
    """


def test_a_linear_is_cut_along_its_outputs():
    half = "tensor<1x64x128xf32, #tensor.lanes<axis = 1>>"
    local = f"tensor<128x128xbf16, {LOCAL}>"

    def rows(index: int) -> str:
        return f"""
          {tile(index, 128, 128, row=128 * index)}
          %y{index} = "tensor.linear"(%x, %t{index}) : ({X}, {local}) -> {half}
        """

    check_pass(
        "tile-weights{bytes=512}",
        before=weight(256, 128) + "\n" + linear(f"({X}, tensor<256x128xbf16>) -> {Y}"),
        after=f"""
          {rows(0)}
          {rows(1)}
          %y = "tensor.concat"(%y0, %y1) <{{axis = 2 : i64}}> : ({half}, {half}) -> {Y}
        """,
    )


ROW = "tensor<1x1x256xf32, #tensor.replicated>"


def test_a_row_that_is_added_to_large_sums_is_added_to_each_part(monkeypatch):
    monkeypatch.setattr(tile_weights, "BESIDE_SHARE", 0.001)
    half = "tensor<1x64x128xf32, #tensor.lanes<axis = 1>>"
    local, row = f"tensor<128x128xbf16, {LOCAL}>", ROW.replace("256", "128")

    def rows(index: int) -> str:
        return f"""
          {tile(index, 128, 128, row=128 * index)}
          %y{index} = "tensor.linear"(%x, %t{index}) : ({X}, {local}) -> {half}
          %b{index} = "tensor.slice"(%b) <{{starts = array<i64: 0, 0, {128 * index}>, sizes = array<i64: 1, 1, 128>}}>
             : ({ROW}) -> {row}
          %z{index} = "tensor.add"(%y{index}, %b{index}) : ({half}, {row}) -> {half}
        """

    check_pass(
        "tile-weights{bytes=1024}",
        before=f"""
          {weight(256, 128)}
          {linear(f"({X}, tensor<256x128xbf16>) -> {Y}")}
          %z = "tensor.add"(%y, %b) : ({Y}, {ROW}) -> {Y}
        """,
        after=f"""
          {rows(0)}
          {rows(1)}
          %z = "tensor.concat"(%z0, %z1) <{{axis = 2 : i64}}> : ({half}, {half}) -> {Y}
        """,
    )


@pytest.mark.parametrize(
    "rest",
    [
        f'%z = "tensor.add"(%y, %b) : ({Y}, {Y}) -> {Y}',  # no row
        f'%z = "tensor.add"(%y, %b) : ({Y}, {ROW}) -> {Y}\n%n = "tensor.add"(%z, %y) : ({Y}, {Y}) -> {Y}',
        f'%z = "tensor.mul"(%y, %b) : ({Y}, {ROW}) -> {Y}',
    ],
)
@pytest.mark.parametrize("share", [0.001, 1 / 3])
def test_what_is_no_row_or_not_all_that_reads_large_sums_is_left(monkeypatch, share, rest):
    monkeypatch.setattr(tile_weights, "BESIDE_SHARE", share)
    text = weight(256, 128) + "\n" + linear(f"({X}, tensor<256x128xbf16>) -> {Y}") + "\n" + rest
    module, _ = parse_ir(text)
    PassManager(parse_pipeline("tile-weights{bytes=512}")).run(module)
    (function,) = module.functions()
    kinds = [op.opname for op in function.block.ops]
    assert kinds.index("tensor.concat") < min(kinds.index(name) for name in ("tensor.add", "tensor.mul") if name in kinds)


def test_a_linear_with_an_accumulator_is_cut_along_its_inputs():
    half = "tensor<1x64x64xbf16, #tensor.lanes<axis = 1>>"
    local = f"tensor<256x64xbf16, {LOCAL}>"

    def columns(index: int, start: str) -> str:
        begin = 64 * index
        return f"""
          %x{index} = "tensor.slice"(%x) <{{starts = array<i64: 0, 0, {begin}>, sizes = array<i64: 1, 64, 64>}}>
             : ({X}) -> {half}
          {tile(index, 256, 64, column=begin)}
          %y{index} = "tensor.linear"(%x{index}, %t{index}, {start}) : ({half}, {local}, {Y}) -> {Y}
        """

    check_pass(
        "tile-weights{bytes=512}",
        before=weight(256, 128) + "\n" + linear(f"({X}, tensor<256x128xbf16>, {Y}) -> {Y}", start=", %a"),
        after=f"""
          {columns(0, "%a")}
          {columns(1, "%y0")}
        """,
    )


def test_a_stored_weight_becomes_packed_tiles_that_are_dequantized():
    scheme = "#weights.scheme<bits = 4, group = 64, zeros = true, scale = f16>"
    packed = f"rows = 256, columns = 128, element = bf16, scheme = {scheme}"
    w = f"tensor<256x128xbf16, {scheme}>"
    check_pass(
        "tile-weights",
        before=f"""
          %w = "tensor.weight"() <{{sources = ["w"]}}> : () -> {w}
          {linear(f"({X}, {w}) -> {Y}")}
        """,
        after=f"""
          %p = "tensor.packed_weight"() <{{sources = ["w"], row = 0 : i64, column = 0 : i64, each = false}}>
             : () -> !tensor.packed<{packed}, local = false>
          %l = "tensor.load"(%p)
             : (!tensor.packed<{packed}, local = false>) -> !tensor.packed<{packed}, local = true>
          %t = "tensor.dequantize"(%l)
             : (!tensor.packed<{packed}, local = true>) -> tensor<256x128xbf16, {LOCAL}>
          %y = "tensor.linear"(%x, %t) : ({X}, tensor<256x128xbf16, {LOCAL}>) -> {Y}
        """,
    )


def test_a_linear_on_a_local_tile_is_not_cut_again():
    text = linear(f"({X}, tensor<256x128xbf16, {LOCAL}>) -> {Y}")
    with pytest.raises(UserError, match="the module has tiled"):
        check_pass("tile-weights", before=text, after=text)


def test_logits_that_would_fill_local_memory_are_packed_tile_by_tile():
    rows = int(0.8 * SPEC.lane_bytes) + 129
    w = (np.random.default_rng(1).integers(-8, 8, (rows, 64))).astype(BF16.numpy)
    program = Program([np.ones((1, 64), BF16.numpy)], {"w": w})
    weight = program.make(tensor.WeightOp, type_=array((rows, 64), BF16), sources=["w"])
    logits = program.make(
        tensor.LinearOp, program.load(slots(1)), weight, type_=array((1, rows), F32, slots(1))
    )
    program.finish(program.add(tensor.ArgmaxOp(logits)))
    program.lower(f"tile-weights,tensor-to-chip,{PLACING}")
    assert program.executed()[0].item() == w.astype(np.float32).sum(1).argmax()


Schemes = tuple[Scheme | None, Scheme | None]  # of gate and up, and of the others


def mlp(tokens: int, hidden: int, inner: int, schemes: Schemes, seed: int) -> Program:
    """A gated linear and the linear that adds its result to a sum, and a plain linear on the same input."""
    rng = np.random.default_rng(seed)
    weights = {
        name: (rng.standard_normal(shape) * shape[1] ** -0.5).astype(BF16.numpy)
        for name, shape in {
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
            "other": (inner, hidden),
        }.items()
    }
    x, start = (rng.standard_normal((1, tokens, hidden)).astype(t) for t in (BF16.numpy, np.float32))
    program = Program([x, start], weights)
    axis = slots(2) if tokens == 1 else slots(1)
    local, total = program.load(axis), program.load(axis)
    w = {
        name: program.make(
            tensor.WeightOp, type_=array(values.shape, BF16, schemes[name in ("down", "other")]), sources=[name]
        )
        for name, values in weights.items()
    }
    gated = program.make(
        tensor.GatedLinearOp, local, w["gate"], w["up"], type_=array((1, tokens, inner), BF16, axis)
    )
    y = program.make(tensor.LinearOp, gated, w["down"], total, type_=total.type)
    if inner % 64 and tokens == 1:  # such a vector cannot be stored
        return program.finish(y)
    wide = array((1, tokens, inner), F32, axis)
    z = program.make(tensor.LinearOp, local, w["other"], None, type_=wide)
    return program.finish(y, z)


SCHEMES = st.sampled_from(
    [None, Scheme(4, 64, True, BF16), Scheme(4, 32, False, BF16), Scheme(8, 128, False, BF16), Scheme(4, 64, True, F16)]
)


@given(
    tokens=st.sampled_from([1, 3, 64, 70]),
    hidden=st.sampled_from([128, 256]),
    sizes=st.one_of(
        st.tuples(st.sampled_from([128, 256, 384]), st.tuples(SCHEMES, SCHEMES)),
        st.tuples(st.sampled_from([200, 340]), st.just((None, None))),
    ),
    tile_bytes=st.sampled_from([256, 1000, 4096, 16384]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_tiled_equals_untiled_on_the_tensor_level_and_on_the_chip(tokens, hidden, sizes, tile_bytes, seed):
    program = mlp(tokens, hidden, *sizes, seed)
    whole = program.interpreted()
    program.lower(f"tile-weights{{bytes={tile_bytes}}}")
    assert not any(tensor.in_ddr(op.w.type) for op in program.function.block.ops if isinstance(op, tensor.LinearOp))
    tiled = program.interpreted()
    program.lower("tensor-to-chip")
    for one, other, executed in zip(whole, tiled, program.executed(), strict=True):
        assert compare(other, one).cosine > 0.999999
        assert compare(executed, other).cosine > 0.999999


GROUPS_OF_64 = Scheme(4, 64, True, BF16), Scheme(4, 64, True, BF16)


@pytest.mark.parametrize("tokens", [1, 64])
def test_what_is_loaded_last_is_small_and_of_one_token_all_that_is_waited_for(tokens):
    """Ten groups of columns, four at most in a tile; the gates of one token are made before."""
    program = mlp(tokens, 128, 640, GROUPS_OF_64, 0)
    program.lower("tile-weights{bytes=2048}")
    tiles = [op.w.type.shape for op in program.function.block.ops if isinstance(op, tensor.LinearOp)]
    gates = [(512, 128), (384, 128), (384, 128)]
    downs = [(128, 256), (128, 192), (128, 128), (128, 64)]
    in_turn = [gates[0], downs[0], gates[1], downs[1], gates[2], *downs[2:]]
    assert tiles[:7] == (gates + downs if tokens == 1 else in_turn)


@pytest.mark.parametrize(("tokens", "columns"), [(1, [1024]), (64, [1024]), (512, [512, 512])])
def test_gates_are_made_of_as_many_columns_as_take_little_room(tokens, columns):
    program = mlp(tokens, 128, 1024, GROUPS_OF_64, 0)
    whole = program.interpreted()
    program.lower("tile-weights{bytes=8192}")
    gates = [op for op in program.function.block.ops if isinstance(op, tensor.Gates)]
    assert [op.results[0].type.shape[-1] for op in gates] == columns
    for one, other in zip(whole, program.interpreted(), strict=True):
        assert compare(other, one).cosine > 0.999999


@pytest.mark.parametrize("tile_bytes", [256, 1024, 4096])
def test_no_tile_is_larger_than_asked_unless_a_row_of_lanes_is(tile_bytes):
    program = mlp(64, 256, 384, (None, None), 0)
    program.lower(f"tile-weights{{bytes={tile_bytes}}}")
    tiles = [op.w.type for op in program.function.block.ops if isinstance(op, tensor.LinearOp)]
    assert len(tiles) > 3
    for tile in tiles:
        rows, columns = tile.shape
        assert 2 * -(-rows // 64) * columns <= max(tile_bytes, 4 * columns, 128 * -(-rows // 64))


@pytest.mark.parametrize(("target", "tiles"), [("bm1684x", 1024 // (2 * 64)), ("bm1688", 1024 // (1 * 32))])
def test_a_tile_is_a_sixteenth_of_a_lane_unless_told_otherwise(target, tiles):
    """Of a row of 4096 weights a lane's 16 KiB hold 2, and 8 KiB hold 1."""
    x, y = (f"tensor<1x64x{n}x{t}, #tensor.lanes<axis = 1>>" for n, t in ((4096, "bf16"), (1024, "f32")))
    large = weight(1024, 4096) + "\n" + linear(f"({x}, tensor<1024x4096xbf16>) -> {y}")
    module, _ = parse_ir(large, target=chip(target))
    PassManager(parse_pipeline("tile-weights")).run(module)
    ops = module.functions()[0].block.ops
    assert sum(isinstance(op, tensor.LinearOp) for op in ops) == tiles


@pytest.mark.parametrize("choice", [True, False])
def test_logits_of_a_large_vocabulary_are_packed_tile_by_tile(choice):
    """In whole slots they would fill local memory; what takes the largest, or stores them, takes them packed."""
    x, y = "tensor<1x64xbf16>", "tensor<1x262144xbf16>"
    last = f'"llm.argmax"(%y) : ({y}) -> tensor<1x1xi32>' if choice else f'"llm.widen"(%y) : ({y}) -> tensor<1x262144xf32>'
    module, _ = parse_ir(f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> tensor<262144x64xbf16>
      %y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
         : ({x}, tensor<262144x64xbf16>) -> {y}
      %z = {last}
    """)
    as_net(module)
    PassManager(parse_pipeline("llm-to-tensor,tile-weights,tensor-to-chip,allocate-local")).run(module)


def test_experts_add_to_the_same_sums_one_after_the_other():
    """Gate and up rows of an expert are one tile; what its share scales is rounded for the last product."""
    packed = "!tensor.packed<rows = 128, columns = 128, element = bf16, local = {}>"
    down = "!tensor.packed<rows = 128, columns = 64, element = bf16, local = {}>"
    rows, half = "tensor<1x64x{}xf32, #tensor.lanes<axis = 1>>", "tensor<1x64x64xbf16, #tensor.lanes<axis = 1>>"

    def expert(e: int, start: str) -> str:
        share, both, one = rows.format(1), rows.format(128), rows.format(64)
        segments = f"operandSegmentSizes = array<i32: 1, 1, {int(bool(start))}>"
        return f"""
          %s{e} = "tensor.slice"(%s) <{{starts = array<i64: 0, 0, {e}>, sizes = array<i64: 1, 64, 1>}}> : ({rows.format(2)}) -> {share}
          %p{e} = "tensor.packed_weight"() <{{sources = ["p[*][0:64:1]", "p[*][64:128:1]"], row = 0 : i64, column = 0 : i64,
            each = true, experts = 2 : i64}}> : () -> {packed.format("false")}
          %l{e} = "tensor.load_expert"(%p{e}) <{{number = {e} : i64, operandSegmentSizes = array<i32: 1, 0>}}> : ({packed.format("false")}) -> {packed.format("true")}
          %w{e} = "tensor.dequantize"(%l{e}) : ({packed.format("true")}) -> tensor<128x128xbf16, {LOCAL}>
          %b{e} = "tensor.linear"(%x, %w{e}) <{{operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({X}, tensor<128x128xbf16, {LOCAL}>) -> {both}
          %g{e} = "tensor.slice"(%b{e}) <{{starts = array<i64: 0, 0, 0>, sizes = array<i64: 1, 64, 64>}}> : ({both}) -> {one}
          %u{e} = "tensor.slice"(%b{e}) <{{starts = array<i64: 0, 0, 64>, sizes = array<i64: 1, 64, 64>}}> : ({both}) -> {one}
          %a{e} = "tensor.bf16_gate"(%g{e}, %u{e}) : ({one}, {one}) -> {one}
          %m{e} = "tensor.mul"(%a{e}, %s{e}) <{{operandSegmentSizes = array<i32: 1, 1>}}> : ({one}, {share}) -> {one}
          %h{e} = "tensor.cast"(%m{e}) : ({one}) -> {half}
          %q{e} = "tensor.packed_weight"() <{{sources = ["d[*]"], row = 0 : i64, column = 0 : i64, experts = 2 : i64}}>
            : () -> {down.format("false")}
          %k{e} = "tensor.load_expert"(%q{e}) <{{number = {e} : i64, operandSegmentSizes = array<i32: 1, 0>}}> : ({down.format("false")}) -> {down.format("true")}
          %v{e} = "tensor.dequantize"(%k{e}) : ({down.format("true")}) -> tensor<128x64xbf16, {LOCAL}>
          %y{e} = "tensor.linear"(%h{e}, %v{e}{start}) <{{{segments}}}>
            : ({half}, tensor<128x64xbf16, {LOCAL}>{f", {both}" if start else ""}) -> {both}
        """

    before = f"""
      %g = "tensor.weight"() <{{sources = ["p[*][0:64:1]"]}}> : () -> tensor<2x64x128xbf16>
      %u = "tensor.weight"() <{{sources = ["p[*][64:128:1]"]}}> : () -> tensor<2x64x128xbf16>
      %d = "tensor.weight"() <{{sources = ["d"]}}> : () -> tensor<2x128x64xbf16>
      %y = "tensor.experts"(%x, %s, %g, %u, %d) <{{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}}>
        : ({X}, {rows.format(2)}, tensor<2x64x128xbf16>, tensor<2x64x128xbf16>, tensor<2x128x64xbf16>) -> {rows.format(128)}
    """
    check_pass("tile-weights{bytes=65536}", before=before, after=expert(0, "") + expert(1, ", %y0"))


def test_activations_that_feed_a_sum_are_multiplied_tile_by_tile():
    """The last of which has as few columns as may be."""
    hidden, x = "tensor<1x64x256xbf16, #tensor.lanes<axis = 1>>", X
    part, y = "tensor<1x64x128xf32, #tensor.lanes<axis = 1>>", "tensor<1x64x128xf32, #tensor.lanes<axis = 1>>"
    segments = "operandSegmentSizes = array<i32: 1, 1, 1>"
    before = weight(256, 128) + weight(128, 256, "v") + f"""
      %a = "tensor.act_linear"(%x, %w) <{{act = "gelu", operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({x}, tensor<256x128xbf16>) -> {hidden}
      %y = "tensor.linear"(%a, %v, %s) <{{{segments}}}> : ({hidden}, tensor<128x256xbf16>, {y}) -> {y}
    """

    def made(index: int) -> str:
        return f"""
          {tile(index, 128, 128, row=128 * index)}
          %p{index}s = "tensor.linear"(%x, %t{index}) : ({x}, tensor<128x128xbf16, {LOCAL}>) -> {part}
          %a{index} = "tensor.bf16_swish"(%p{index}s) <{{slope = 1.6 : f64, cubic = 0.0695 : f64}}> : ({part}) -> {part}
        """

    def rounded(inputs: str, columns: int, first: int) -> str:
        f32, bf16 = (part.replace("128xf32", f"{columns}x{element}") for element in ("f32", "bf16"))
        return f'%h{first} = "tensor.cast"({inputs}) : ({f32}) -> {bf16}'

    def multiplied(columns: int, first: int, start: str) -> str:
        packed = f"!tensor.packed<rows = 128, columns = {columns}, element = bf16, local = {{}}>"
        bf16 = part.replace("128xf32", f"{columns}xbf16")
        return f"""
          %q{first} = "tensor.packed_weight"() <{{sources = ["v"], row = 0 : i64, column = {first} : i64, each = false}}> : () -> {packed.format("false")}
          %k{first} = "tensor.load"(%q{first}) : ({packed.format("false")}) -> {packed.format("true")}
          %u{first} = "tensor.dequantize"(%k{first}) : ({packed.format("true")}) -> tensor<128x{columns}xbf16, {LOCAL}>
          %y{first} = "tensor.linear"(%h{first}, %u{first}, {start}) <{{{segments}}}> : ({bf16}, tensor<128x{columns}xbf16, {LOCAL}>, {y}) -> {y}
        """

    def half(first: int) -> str:
        return f"""
          %c{first} = "tensor.slice"(%a1) <{{starts = array<i64: 0, 0, {first}>, sizes = array<i64: 1, 64, 64>}}>
            : ({part}) -> {part.replace("128xf32", "64xf32")}
        """

    halves = [half(0), half(64), rounded("%c0", 64, 128), rounded("%c64", 64, 192)]
    last = [made(1), *halves, multiplied(64, 128, "%y0"), multiplied(64, 192, "%y128")]
    after = "\n".join([made(0), rounded("%a0", 128, 0), multiplied(128, 0, "%s"), *last])
    check_pass("tile-weights{bytes=1024}", before=before, after=after)


def test_columns_of_large_sums_that_are_read_apart_are_rounded_apart(monkeypatch):
    monkeypatch.setattr(tile_weights, "BESIDE_SHARE", 0.001)
    half, local = "tensor<1x64x128xf32, #tensor.lanes<axis = 1>>", f"tensor<128x128xbf16, {LOCAL}>"
    rounded = half.replace("f32", "bf16")
    both = Y.replace("f32", "bf16")
    before = weight(256, 128) + "\n" + linear(f"({X}, tensor<256x128xbf16>) -> {Y}") + f"""
      %h = "tensor.cast"(%y) : ({Y}) -> {both}
      %a = "tensor.slice"(%h) <{{starts = array<i64: 0, 0, 0>, sizes = array<i64: 1, 64, 128>}}> : ({both}) -> {rounded}
      %b = "tensor.slice"(%h) <{{starts = array<i64: 0, 0, 128>, sizes = array<i64: 1, 64, 128>}}> : ({both}) -> {rounded}
      %z = "tensor.concat"(%b, %a) <{{axis = 2 : i64}}> : ({rounded}, {rounded}) -> {both}
    """

    def rows(index: int) -> str:
        return f"""
          {tile(index, 128, 128, row=128 * index)}
          %y{index} = "tensor.linear"(%x, %t{index}) : ({X}, {local}) -> {half}
          %h{index} = "tensor.cast"(%y{index}) : ({half}) -> {rounded}
        """

    after = f"""
      {rows(0)}
      {rows(1)}
      %z = "tensor.concat"(%h1, %h0) <{{axis = 2 : i64}}> : ({rounded}, {rounded}) -> {both}
    """
    check_pass("tile-weights{bytes=1024}", before=before, after=after)


@pytest.mark.parametrize(("element", "kind"), [(BF16, tensor.Bf16GateOp), (F16, tensor.GateOp)])
def test_only_gates_that_are_rounded_to_bf16_are_made_in_less_time(element, kind):
    program = Program([np.ones((1, 64, 128), element.numpy)], {"g": np.ones((128, 128), element.numpy)})
    w = program.make(tensor.WeightOp, type_=array((128, 128), element, None), sources=["g"])
    made = array((1, 64, 128), element, slots(1))
    program.finish(program.make(tensor.GatedLinearOp, program.load(slots(1)), w, w, type_=made))
    program.lower("tile-weights")
    gates = [type(op) for op in program.function.block.ops if isinstance(op, tensor.Gates)]
    assert gates == [kind]
