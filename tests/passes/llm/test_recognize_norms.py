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
