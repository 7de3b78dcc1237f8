"""Arithmetic before, named ops after; and arithmetic that only looks like one."""

from __future__ import annotations

import pytest

from compiler.ir.printer import print_module
from compiler.ir.verify import verify
from frontend.patterns import recognize
from tests.helpers import parse_ir

X = "tensor<1x8x16xf32>"
ROW = "tensor<1x8x1xf32>"
W = "tensor<16xf32>"
H = "tensor<1x2x8x16xf32>"
HALF = "tensor<1x2x8x8xf32>"
TABLE = "tensor<1x1x8x16xf32>"


def check(before: str, after: str) -> None:
    module, args = parse_ir(before, "before")
    expected, _ = parse_ir(after, "after", args)
    verify(expected)
    recognize(module)
    verify(module)
    got, want = (print_module(m, names=False, locations=False) for m in (module, expected))
    assert got == want


def rms(x: str, result: str, axis: int = 2, exponent: str = "2.0", row: str = ROW) -> str:
    return f"""
    %sq = "llm.pow"(%{x}) <{{exponent = {exponent} : f64}}> : ({X}) -> {X}
    %m = "llm.mean"(%sq) <{{axis = {axis} : i64}}> : ({X}) -> {row}
    %me = "llm.add"(%m) <{{value = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({row}) -> {row}
    %r = "llm.rsqrt"(%me) : ({row}) -> {row}
    %{result} = "llm.mul"(%{x}, %r) : ({X}, {row}) -> {X}
"""


WEIGHT = f"""
    %w = "llm.weight"() <{{name = "norm.weight"}}> : () -> {W}
"""


def test_rms_norm_with_its_weight():
    before = (
        rms("x", "n")
        + WEIGHT
        + f"""
    %y = "llm.mul"(%w, %n) : ({W}, {X}) -> {X}
"""
    )
    after = (
        WEIGHT
        + f"""
    %y = "llm.rms_norm"(%x, %w) <{{eps = 1.0e-05 : f64, offset = 0.0 : f64}}> : ({X}, {W}) -> {X}
"""
    )
    check(before, after)


def test_rms_norm_with_a_weight_plus_one():
    before = (
        rms("x", "n")
        + WEIGHT
        + f"""
    %w1 = "llm.add"(%w) <{{value = 1.0 : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({W}) -> {W}
    %y = "llm.mul"(%n, %w1) : ({X}, {W}) -> {X}
"""
    )
    after = (
        WEIGHT
        + f"""
    %y = "llm.rms_norm"(%x, %w) <{{eps = 1.0e-05 : f64, offset = 1.0 : f64}}> : ({X}, {W}) -> {X}
"""
    )
    check(before, after)


def test_rms_norm_without_weight_and_its_product_with_an_activation():
    before = (
        rms("x", "n")
        + f"""
    %y = "llm.mul"(%n, %a) : ({X}, {W}) -> {X}
"""
    )
    after = f"""
    %n = "llm.rms_norm"(%x) <{{eps = 1.0e-05 : f64, offset = 0.0 : f64}}> : ({X}) -> {X}
    %y = "llm.mul"(%n, %a) : ({X}, {W}) -> {X}
"""
    check(before, after)


def test_layer_norm_is_the_norm_of_what_is_left_without_the_mean():
    before = (
        f"""
    %mu = "llm.mean"(%x) <{{axis = 2 : i64}}> : ({X}) -> {ROW}
    %d = "llm.sub"(%x, %mu) : ({X}, {ROW}) -> {X}
"""
        + rms("d", "n")
        + WEIGHT
        + f"""
    %y = "llm.mul"(%n, %w) : ({X}, {W}) -> {X}
"""
    )
    after = (
        WEIGHT
        + f"""
    %y = "llm.layer_norm"(%x, %w) <{{eps = 1.0e-05 : f64, operandSegmentSizes = array<i32: 1, 1, 0>}}>
        : ({X}, {W}) -> {X}
"""
    )
    check(before, after)


@pytest.mark.parametrize(
    "text",
    [
        rms("x", "n", exponent="3.0"),
        rms("x", "n", axis=1, row="tensor<1x1x16xf32>"),
        rms("x", "n").replace('"llm.mul"(%x', '"llm.mul"(%z'),
    ],
)
def test_what_is_no_norm_stays(text):
    check(text, text)


def slice_of(name: str, x: str, start: int, stop: int, step: int, types: str) -> str:
    bounds = f"axis = 3 : i64, start = {start} : i64, stop = {stop} : i64, step = {step} : i64"
    return f"""
    %{name} = "llm.slice"(%{x}) <{{{bounds}}}> : {types}
"""


def rope_sum() -> str:
    return f"""
    %xc = "llm.mul"(%x, %cos) : ({H}, {TABLE}) -> {H}
    %ps = "llm.mul"(%p, %sin) : ({H}, {TABLE}) -> {H}
    %y = "llm.add"(%xc, %ps) : ({H}, {H}) -> {H}
"""


def half(negated: str = "high") -> str:
    other = {"high": "low", "low": "high"}[negated]
    return (
        slice_of("low", "x", 0, 8, 1, f"({H}) -> {HALF}")
        + slice_of("high", "x", 8, 16, 1, f"({H}) -> {HALF}")
        + f"""
    %n = "llm.neg"(%{negated}) : ({HALF}) -> {HALF}
    %p = "llm.concat"(%n, %{other}) <{{axis = 3 : i64}}> : ({HALF}, {HALF}) -> {H}
"""
        + rope_sum()
    )


def rope(mode: str) -> str:
    return f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "{mode}", rotary_dim = 16 : i64}}> : ({H}, {TABLE}, {TABLE}) -> {H}
"""


def in_order(text: str) -> str:
    """Name the arguments in one order on both sides: an op that reads them all, first."""
    return (
        f"""
    %all = "llm.concat"(%x, %x) <{{axis = 3 : i64}}> : ({H}, {H}) -> tensor<1x2x8x32xf32>
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({TABLE}, {TABLE}) -> tensor<1x1x8x32xf32>
"""
        + text
    )


def test_rope_of_halves():
    check(in_order(half()), in_order(rope("half")))


def test_rope_with_the_other_half_negated_stays():
    check(in_order(half("low")), in_order(half("low")))


def interleaved(first: int) -> str:
    column, pairs = "tensor<1x2x8x8x1xf32>", "tensor<1x2x8x8x2xf32>"
    shape = "shape = array<i64: 1, 2, 8, 8, 1>"
    return (
        slice_of("odd", "x", first, 16 - (1 - first), 2, f"({H}) -> {HALF}")
        + slice_of("even", "x", 1 - first, 16 - first, 2, f"({H}) -> {HALF}")
        + f"""
    %n = "llm.neg"(%odd) : ({HALF}) -> {HALF}
    %a = "llm.reshape"(%n) <{{{shape}}}> : ({HALF}) -> {column}
    %b = "llm.reshape"(%even) <{{{shape}}}> : ({HALF}) -> {column}
    %j = "llm.concat"(%a, %b) <{{axis = 4 : i64}}> : ({column}, {column}) -> {pairs}
    %p = "llm.reshape"(%j) <{{shape = array<i64: 1, 2, 8, 16>}}> : ({pairs}) -> {H}
"""
        + rope_sum()
    )


def test_rope_of_neighbours():
    check(in_order(interleaved(1)), in_order(rope("interleaved")))


def test_rope_of_neighbours_with_the_even_ones_negated_stays():
    check(in_order(interleaved(0)), in_order(interleaved(0)))


def test_rope_of_a_part_of_each_head():
    wide, part, rest = "tensor<1x2x8x24xf32>", H, HALF
    heads = slice_of("x", "h", 0, 16, 1, f"({wide}) -> {part}") + slice_of(
        "rest", "h", 16, 24, 1, f"({wide}) -> {rest}"
    )
    # Halves of the part as slices of the whole head, since slices of slices are merged.
    body = half().replace("(%x) <{axis = 3 : i64, start", "(%h) <{axis = 3 : i64, start")
    body = body.replace(f"({H}) -> {HALF}\n\n    %high", f"({wide}) -> {HALF}\n\n    %high")
    body = body.replace(f": ({H}) -> {HALF}", f": ({wide}) -> {HALF}")
    joined = f"""
    %z = "llm.concat"(%y, %rest) <{{axis = 3 : i64}}> : ({part}, {rest}) -> {wide}
"""
    after = f"""
    %z = "llm.rope"(%h, %cos, %sin) <{{mode = "half", rotary_dim = 16 : i64}}> : ({wide}, {TABLE}, {TABLE}) -> {wide}
"""
    first = f"""
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({TABLE}, {TABLE}) -> tensor<1x1x8x32xf32>
    %heads = "llm.neg"(%h) : ({wide}) -> {wide}
"""
    check(first + heads + body + joined, first + after)


def test_rope_with_tables_of_half_the_width():
    table = "tensor<1x1x8x8xf32>"
    text = (
        slice_of("a", "x", 0, 8, 1, f"({H}) -> {HALF}")
        + slice_of("b", "x", 8, 16, 1, f"({H}) -> {HALF}")
        + f"""
    %ac = "llm.mul"(%a, %cos) : ({HALF}, {table}) -> {HALF}
    %bs = "llm.mul"(%b, %sin) : ({HALF}, {table}) -> {HALF}
    %bc = "llm.mul"(%b, %cos) : ({HALF}, {table}) -> {HALF}
    %as = "llm.mul"(%a, %sin) : ({HALF}, {table}) -> {HALF}
    %first = "llm.sub"(%ac, %bs) : ({HALF}, {HALF}) -> {HALF}
    %second = "llm.add"(%bc, %as) : ({HALF}, {HALF}) -> {HALF}
    %y = "llm.concat"(%first, %second) <{{axis = 3 : i64}}> : ({HALF}, {HALF}) -> {H}
"""
    )
    order = f"""
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({table}, {table}) -> tensor<1x1x8x16xf32>
    %heads = "llm.neg"(%x) : ({H}) -> {H}
"""
    after = f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "half_tables", rotary_dim = 16 : i64}}> : ({H}, {table}, {table}) -> {H}
"""
    check(order + text, order + after)
    swapped = text.replace('"llm.mul"(%a, %sin)', '"llm.mul"(%a, %a)').replace(
        f"%a) : ({HALF}, {table})", f"%a) : ({HALF}, {HALF})"
    )
    check(order + swapped, order + swapped)


def mul(result: str, x: str, value: str) -> str:
    return f"""
    %{result} = "llm.mul"(%{x}) <{{value = {value} : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({X}) -> {X}
"""


def act(result: str, x: str, kind: str) -> str:
    return f"""
    %{result} = "llm.act"(%{x}) <{{kind = "{kind}"}}> : ({X}) -> {X}
"""


def product(result: str, a: str, b: str) -> str:
    return f"""
    %{result} = "llm.mul"(%{a}, %{b}) : ({X}, {X}) -> {X}
"""


def test_silu_and_quick_gelu_from_a_sigmoid():
    check(act("s", "x", "sigmoid") + product("y", "s", "x"), act("y", "x", "silu"))
    quick = mul("k", "x", "1.702") + act("s", "k", "sigmoid") + product("y", "x", "s")
    check(quick, act("y", "x", "quick_gelu"))
    other = mul("k", "x", "1.7") + act("s", "k", "sigmoid") + product("y", "x", "s")
    check(other, other)


def test_relu_squared():
    square = f"""
    %y = "llm.pow"(%r) <{{exponent = 2.0 : f64}}> : ({X}) -> {X}
"""
    check(act("r", "x", "relu") + square, act("y", "x", "relu2"))
    check(act("r", "x", "tanh") + square, act("r", "x", "tanh") + square)


def gelu(cubic: str) -> str:
    return (
        mul("half", "x", "0.5")
        + f"""
    %cube = "llm.pow"(%x) <{{exponent = 3.0 : f64}}> : ({X}) -> {X}
"""
        + mul("part", "cube", cubic)
        + f"""
    %sum = "llm.add"(%x, %part) : ({X}, {X}) -> {X}
"""
        + mul("inside", "sum", "0.7978845608028654")
        + act("t", "inside", "tanh")
        + f"""
    %one = "llm.add"(%t) <{{value = 1.0 : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({X}) -> {X}
"""
        + product("y", "half", "one")
    )


def test_gelu_by_its_tanh_formula():
    check(gelu("0.044715"), act("y", "x", "gelu_tanh"))
    check(gelu("0.05"), gelu("0.05"))


def test_softcap_needs_one_cap():
    def text(after: str) -> str:
        divided = f"""
    %d = "llm.div"(%x) <{{value = 30.0 : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({X}) -> {X}
"""
        return divided + act("t", "d", "tanh") + mul("y", "t", after)

    check(text("30.0"), f'%y = "llm.softcap"(%x) <{{cap = 30.0 : f64}}> : ({X}) -> {X}')
    check(text("20.0"), text("20.0"))


def test_scale_of_an_embedding():
    def embedding(scale: str) -> str:
        return f"""
    %e = "llm.embedding"(%ids, %w) <{{scale = {scale} : f64}}> : (tensor<1x8xi32>, tensor<9x16xf32>) -> {X}
"""

    check(embedding("1.0") + mul("y", "e", "8.0"), embedding("8.0"))
