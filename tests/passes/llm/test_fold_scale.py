"""Factors of outputs: folded into weights where they are parameters, and left where they are not."""

from __future__ import annotations

import pytest

from tests.helpers import check_pass

X, W, B = "tensor<1x8x32xbf16>", "tensor<64x32xbf16>", "tensor<64xbf16>"
Y = "tensor<1x8x64xbf16>"
SEGMENTS = "operandSegmentSizes = array<i32: 1, 1, 1, 0>"
WEIGHTS = f"""
    %w = "llm.weight"() <{{name = "proj.weight"}}> : () -> {W}
    %b = "llm.weight"() <{{name = "proj.bias"}}> : () -> {B}
    %s = "llm.weight"() <{{name = "/scale"}}> : () -> {B}
"""
LINEAR = f"""
    %p = "llm.linear"(%x, %w, %b) <{{{SEGMENTS}}}> : ({X}, {W}, {B}) -> {Y}
"""


@pytest.mark.parametrize("operands", [f"(%s, %p) : ({B}, {Y})", f"(%p, %s) : ({Y}, {B})"])
def test_factors_of_outputs_are_part_of_the_weight(operands):
    types = f'"llm.mul"{operands} -> {Y}'
    after = f"""
    %w = "llm.weight"() <{{name = "proj.weight^*/scale"}}> : () -> {W}
    %b = "llm.weight"() <{{name = "proj.bias^*/scale"}}> : () -> {B}
    %y = "llm.linear"(%x, %w, %b) <{{{SEGMENTS}}}> : ({X}, {W}, {B}) -> {Y}
"""
    check_pass("fold-scale,canonicalize", before=f"{WEIGHTS}{LINEAR}    %y = {types}\n", after=after)


KEPT = {
    "the product is read by others": f"""
{WEIGHTS}{LINEAR}
    %m = "llm.mul"(%p, %s) : ({Y}, {B}) -> {Y}
    %y = "llm.add"(%m, %p) : ({Y}, {Y}) -> {Y}
""",
    "the factors are computed": f"""
{WEIGHTS}{LINEAR}
    %n = "llm.neg"(%s) : ({B}) -> {B}
    %y = "llm.mul"(%p, %n) : ({Y}, {B}) -> {Y}
""",
    "the weight is some of another": f"""
{WEIGHTS.replace("proj.weight", "proj.weight^M")}{LINEAR}
    %y = "llm.mul"(%p, %s) : ({Y}, {B}) -> {Y}
""",
}


@pytest.mark.parametrize("case", KEPT)
def test_other_products_stay(case):
    check_pass("fold-scale", before=KEPT[case], after=KEPT[case])
