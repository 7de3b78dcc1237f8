"""Norms from means and reciprocal roots; and arithmetic that only looks like one."""

from __future__ import annotations

import pytest

from tests.helpers import check_pass

X = "tensor<1x8x16xf32>"
ROW = "tensor<1x8x1xf32>"
W = "tensor<16xf32>"
PIPELINE = "canonicalize,recognize-norms,canonicalize"


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
    check_pass(PIPELINE, before, after)


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
    check_pass(PIPELINE, before, after)


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
    check_pass(PIPELINE, before, after)


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
    check_pass(PIPELINE, before, after)


@pytest.mark.parametrize(
    "text",
    [
        rms("x", "n", exponent="3.0"),
        rms("x", "n", axis=1, row="tensor<1x1x16xf32>"),
        rms("x", "n").replace('"llm.mul"(%x', '"llm.mul"(%z'),
    ],
)
def test_what_is_no_norm_stays(text):
    check_pass(PIPELINE, text, text)


HEADS, HEAD, LAST = "tensor<1x2x8x4xf32>", "tensor<1x1x8x4xf32>", "tensor<1x8x2x4xf32>"


def norms_of_heads(first: int = 0, eps: str = "1.0e-6", second_bias: bool = True) -> str:
    biases = "1, 1, 1", "1, 1, 1" if second_bias else "1, 1, 0"
    types = ", ".join([HEAD] + ["tensor<4xf32>"] * 2)
    text = ""
    for i, (start, sizes, e) in enumerate(zip((first, 1 - first), biases, ("1.0e-6", eps), strict=True)):
        operands, kinds = ("%h{0}, %w{0}, %b{0}", types) if sizes == "1, 1, 1" else ("%h{0}, %w{0}", types.rpartition(", ")[0])
        bias = f'%b{i} = "llm.weight"() <{{name = "b{i}"}}> : () -> tensor<4xf32>' if "%b" in operands else ""
        text += f"""
    %w{i} = "llm.weight"() <{{name = "w{i}"}}> : () -> tensor<4xf32>
    {bias}
    %h{i} = "llm.slice"(%x) <{{axis = 1 : i64, start = {start} : i64, stop = {start + 1} : i64}}> : ({HEADS}) -> {HEAD}
    %n{i} = "llm.layer_norm"({operands.format(i)}) <{{eps = {e} : f64, operandSegmentSizes = array<i32: {sizes}>}}> : ({kinds}) -> {HEAD}
"""
    return text + f"""
    %y = "llm.concat"(%n0, %n1) <{{axis = 1 : i64}}> : ({HEAD}, {HEAD}) -> {HEADS}
"""


def test_a_norm_for_each_head_is_one_with_a_row_for_each():
    rows = "".join(f"""
    %{n}0 = "llm.weight"() <{{name = "{n}0"}}> : () -> tensor<4xf32>
    %{n}1 = "llm.weight"() <{{name = "{n}1"}}> : () -> tensor<4xf32>
    %{n}j = "llm.concat_weights"(%{n}0, %{n}1) : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
    %{n} = "llm.reshape"(%{n}j) <{{shape = array<i64: 2, 4>}}> : (tensor<8xf32>) -> tensor<2x4xf32>
""" for n in "wb")
    lines = [line for line in rows.splitlines() if line.strip()]
    order = [0, 4, 1, 5, 2, 3, 6, 7]  # weights stand where the norms did
    after = "\n".join(lines[i] for i in order) + f"""
    %t = "llm.permute"(%x) <{{order = array<i64: 0, 2, 1, 3>}}> : ({HEADS}) -> {LAST}
    %n = "llm.layer_norm"(%t, %w, %b) <{{eps = 1.0e-6 : f64, operandSegmentSizes = array<i32: 1, 1, 1>}}> : ({LAST}, tensor<2x4xf32>, tensor<2x4xf32>) -> {LAST}
    %y = "llm.permute"(%n) <{{order = array<i64: 0, 2, 1, 3>}}> : ({LAST}) -> {HEADS}
"""
    check_pass("recognize-norms,canonicalize", before=norms_of_heads(), after=after)


@pytest.mark.parametrize("other", [{"first": 1}, {"eps": "1.0e-5"}, {"second_bias": False}], ids=str)
def test_norms_of_heads_that_differ_in_more_than_weights_stay(other):
    text = norms_of_heads(**other)
    check_pass("canonicalize,recognize-norms", before=text, after=text)
