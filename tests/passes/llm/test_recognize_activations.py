"""Activations, and scales of other ops, from what models spell out; and what only looks like one."""

from __future__ import annotations

from tests.helpers import check_pass

X = "tensor<1x8x16xf32>"
PIPELINE = "canonicalize,recognize-activations,canonicalize"


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
    check_pass(PIPELINE, act("s", "x", "sigmoid") + product("y", "s", "x"), act("y", "x", "silu"))
    quick = mul("k", "x", "1.702") + act("s", "k", "sigmoid") + product("y", "x", "s")
    check_pass(PIPELINE, quick, act("y", "x", "quick_gelu"))
    other = mul("k", "x", "1.7") + act("s", "k", "sigmoid") + product("y", "x", "s")
    check_pass(PIPELINE, other, other)


def test_relu_squared():
    square = f"""
    %y = "llm.pow"(%r) <{{exponent = 2.0 : f64}}> : ({X}) -> {X}
"""
    check_pass(PIPELINE, act("r", "x", "relu") + square, act("y", "x", "relu2"))
    check_pass(PIPELINE, act("r", "x", "tanh") + square, act("r", "x", "tanh") + square)


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
    check_pass(PIPELINE, gelu("0.044715"), act("y", "x", "gelu_tanh"))
    check_pass(PIPELINE, gelu("0.05"), gelu("0.05"))


def test_softcap_needs_one_cap():
    def text(after: str) -> str:
        divided = f"""
    %d = "llm.div"(%x) <{{value = 30.0 : f64, operandSegmentSizes = array<i32: 1, 0>}}> : ({X}) -> {X}
"""
        return divided + act("t", "d", "tanh") + mul("y", "t", after)

    check_pass(PIPELINE, text("30.0"), f'%y = "llm.softcap"(%x) <{{cap = 30.0 : f64}}> : ({X}) -> {X}')
    check_pass(PIPELINE, text("20.0"), text("20.0"))


def test_scale_of_an_embedding():
    def embedding(scale: str) -> str:
        return f"""
    %e = "llm.embedding"(%ids, %w) <{{scale = {scale} : f64}}> : (tensor<1x8xi32>, tensor<9x16xf32>) -> {X}
"""

    check_pass(PIPELINE, embedding("1.0") + mul("y", "e", "8.0"), embedding("8.0"))
