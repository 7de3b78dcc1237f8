"""Weights that several runs of tokens read are loaded and dequantized once, as far as there is room."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.types import BF16, F32
from compiler.target.chips.bm1688 import BM1688
from compiler.weights.scheme import Scheme
from dialects import tensor
from tests.helpers import check_pass
from tests.passes.programs import EVERYWHERE, Program, array, slots

X = "tensor<1x64x128xbf16, #tensor.lanes<axis = 1>>"
LOCAL = "#tensor.lanes<axis = 0>"
VECTOR, ROW = "tensor<1x1x64xbf16>", "tensor<1x1x64xbf16, #tensor.replicated>"
BYTES = 512  # of 128 x 128 weights of 16 bit, in each of 64 lanes


def weight(
    tile: str, rows: int = 128, row: int = 0, source: str = "w", bits: int = 16, zero: bool = False
) -> str:
    """%<tile>: rows of a parameter, packed, loaded and dequantized; 128 rows of 128 columns take BYTES."""
    zeros = str(zero).lower()
    scheme = f", scheme = #weights.scheme<bits = {bits}, group = 64, zeros = {zeros}, scale = bf16>" if bits < 16 else ""
    kind = f"rows = {rows}, columns = 128, element = bf16{scheme}"
    packed, local = (f"!tensor.packed<{kind}, local = {where}>" for where in ("false", "true"))
    return f"""
      %p{tile} = "tensor.packed_weight"()
         <{{sources = ["{source}"], row = {row} : i64, column = 0 : i64, each = false}}> : () -> {packed}
      %l{tile} = "tensor.load"(%p{tile}) : ({packed}) -> {local}
      %{tile} = "tensor.dequantize"(%l{tile}) : ({local}) -> tensor<{rows}x128xbf16, {LOCAL}>
    """


def linear(tile: str, x: str = "x", rows: int = 128) -> str:
    y = f"tensor<1x64x{rows}xf32, #tensor.lanes<axis = 1>>"
    return f'%y{tile}{x} = "tensor.linear"(%{x}, %{tile}) : ({X}, tensor<{rows}x128xbf16, {LOCAL}>) -> {y}\n'


TWICE = weight("a") + linear("a", "x") + weight("b") + linear("b", "z")
ONCE = weight("a") + linear("a", "x") + linear("a", "z")


@pytest.mark.parametrize("kind", [{}, {"bits": 4, "zero": True}])
def test_equal_chains_become_one(kind):
    runs = [weight(tile, **kind) + linear(tile, x) for tile, x in zip("abc", "xyz", strict=True)]
    once = runs[0] + linear("a", "y") + linear("a", "z")
    check_pass(f"share-constants{{keep={BYTES}}}", before="".join(runs), after=once)


@pytest.mark.parametrize("keep", [0, BYTES - 1])
def test_nothing_is_shared_without_room(keep):
    check_pass(f"share-constants{{keep={keep}}}", before=TWICE, after=TWICE)


def test_room_is_that_of_the_chip_s_lanes():
    check_pass(f"share-constants{{keep={BYTES}}}", before=TWICE, after=TWICE, target=BM1688)
    check_pass(f"share-constants{{keep={2 * BYTES}}}", before=TWICE, after=ONCE, target=BM1688)


def test_what_comes_first_gets_the_room_and_what_is_read_once_takes_none():
    rows = {"a": 128, "b": 256, "c": 128}

    def own(source: str, run: int) -> str:
        tile = f"{source}{run}"
        return weight(tile, rows[source], source=source) + linear(tile, "xz"[run], rows[source])

    first = weight("d", source="d") + linear("d") + own("a", 0) + own("b", 0) + own("c", 0)
    check_pass(
        f"share-constants{{keep={2 * BYTES}}}",
        before=first + own("a", 1) + own("b", 1) + own("c", 1),
        after=first + linear("a0", "z") + own("b", 1) + linear("c0", "z"),
    )


OTHERS = [{"row": 128}, {"source": "v"}, {"bits": 8}, {"zero": True}, {"rows": 64}]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_weights_that_differ_are_not_shared(other):
    one, another = weight("a", bits=4), weight("b", **{"bits": 4, **other})
    text = one + linear("a") + another + linear("b", rows=other.get("rows", 128))
    check_pass("share-constants{keep=65536}", before=text, after=text)


def load(name: str, source: str) -> str:
    return f'%{name} = "tensor.load"(%{source}) : ({VECTOR}) -> {ROW}\n'


def vector(name: str, source: str = "w") -> str:
    return f'%{name} = "tensor.weight"() <{{sources = ["{source}"]}}> : () -> {VECTOR}\n'


def part(name: str, whole: str, start: int) -> str:
    return f"""
      %{name} = "tensor.slice"(%{whole})
         <{{starts = array<i64: 0, 0, {start}>, sizes = array<i64: 1, 1, 32>}}>
         : ({ROW}) -> tensor<1x1x32xbf16, #tensor.replicated>
    """


def add(name: str, lhs: str, rhs: str, size: int = 64) -> str:
    row = f"tensor<1x1x{size}xbf16, #tensor.replicated>"
    return f'%{name} = "tensor.add"(%{lhs}, %{rhs}) : ({row}, {row}) -> {row}\n'


def test_loads_of_arguments_are_not_shared():
    text = load("a", "x") + add("s", "a", "q") + load("b", "x") + add("t", "b", "q")
    check_pass("share-constants{keep=65536}", before=text, after=text)


def test_unquantized_weights_are_shared():
    once = vector("w") + load("a", "w") + add("s", "a", "q")
    check_pass(
        "share-constants{keep=65536}",
        before=once + vector("v") + load("b", "v") + add("t", "b", "q"),
        after=once + add("t", "a", "q"),
    )


def test_parts_of_equal_weights_become_parts_of_one():
    def run(whole: str, i: int) -> str:
        return part(f"e{i}", whole, i) + add(f"s{i}", f"e{i}", "q", 32)

    first = vector("w") + load("a", "w") + run("a", 0)
    second = vector("v") + load("b", "v")
    check_pass(
        "share-constants{keep=65536}",
        before=first + second + part("f", "b", 0) + add("t", "f", "q", 32) + run("b", 1),
        after=first + part("f", "a", 0) + add("t", "f", "q", 32) + run("a", 1),
    )


def test_a_weight_is_shared_where_it_is_read_whole_and_in_parts():
    def run(whole: str, part_: str, x: str) -> str:
        return add(f"s{x}", whole, x) + add(f"t{x}", part_, f"r{x}", 32)

    first, second = (vector(f"w{name}") + load(name, f"w{name}") + part(f"e{name}", name, 0) for name in "ab")
    check_pass(
        "share-constants{keep=65536}",
        before=first + run("a", "ea", "x") + second + run("b", "eb", "z"),
        after=first + run("a", "ea", "x") + part("eb", "a", 0) + run("a", "eb", "z"),
    )


def test_what_lies_in_ddr_stays():
    def gather(number: int) -> str:
        return f"""
          %w{number} = "tensor.weight"() <{{sources = ["w"]}}> : () -> tensor<8x64xbf16>
          %y{number} = "tensor.gather"(%w{number}, %ids{number})
             : (tensor<8x64xbf16>, tensor<1x1xi32>) -> {VECTOR}
        """

    text = gather(0) + gather(1)
    check_pass("share-constants{keep=65536}", before=text, after=text)


WIDTH = 128
SCHEMES = st.sampled_from([None, Scheme(4, 64, True, BF16), Scheme(8, 128, False, BF16)])


def runs_of_tokens(count: int, scheme: Scheme | None) -> Program:
    """y = (x @ up.T + b) and y @ down.T, for each of some inputs, with the weights anew for each."""
    rng = np.random.default_rng(count)
    matrices = {name: rng.standard_normal((WIDTH, WIDTH)) / 11 for name in ("up", "down")}
    weights = {name: x.astype(BF16.numpy) for name, x in matrices.items()}
    weights["b"] = rng.standard_normal(WIDTH).astype(np.float32)
    inputs = [rng.standard_normal((1, 64, WIDTH)).astype(BF16.numpy) for _ in range(count)]
    program = Program(inputs, weights)
    outputs = []
    for _ in inputs:
        x = program.load(slots(1))
        up, down = (
            program.make(tensor.WeightOp, type_=array((WIDTH, WIDTH), BF16, scheme), sources=[name])
            for name in ("up", "down")
        )
        b = program.make(tensor.WeightOp, type_=array((WIDTH,), F32), sources=["b"])
        b = program.make(tensor.LoadOp, b, type_=array((WIDTH,), F32, EVERYWHERE))
        b = program.make(tensor.ReshapeOp, b, type_=array((1, 1, WIDTH), F32, EVERYWHERE))
        wide = array((1, 64, WIDTH), F32, slots(1))
        y = program.make(tensor.LinearOp, x, up, None, type_=wide)
        y = program.make(tensor.AddOp, y, b, type_=wide)
        y = program.make(tensor.CastOp, y, type_=x.type)
        outputs.append(program.make(tensor.LinearOp, y, down, None, type_=wide))
    program = program.finish(*outputs)
    program.lower("tile-weights{bytes=256}")
    return program


@given(count=st.integers(2, 3), scheme=SCHEMES, keep=st.sampled_from([0, 300, 700, 65536]))
@settings(max_examples=8)
def test_sharing_changes_no_bit_on_the_tensor_level_and_on_the_chip(count, scheme, keep):
    apart, shared = (runs_of_tokens(count, scheme) for _ in range(2))
    shared.lower(f"share-constants{{keep={keep}}}")
    dequantized, left = (len(ops_of(program, tensor.DequantizeOp)) for program in (apart, shared))
    assert left == {0: dequantized, 65536: dequantized // count}.get(keep, left)
    assert bits(shared.interpreted()) == bits(apart.interpreted())
    for program in (apart, shared):
        program.lower("tensor-to-chip")
    assert bits(shared.executed()) == bits(apart.executed())


def ops_of(program: Program, kind: type) -> list:
    return [op for op in program.function.block.ops if isinstance(op, kind)]


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in arrays]
