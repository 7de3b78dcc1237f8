"""Products with weights and what gates them, of one token and of many."""

from __future__ import annotations

from typing import get_args

import ml_dtypes
import pytest

from dialects.activations import Activation
from passes import load_all
from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()

ACTIVATIONS = get_args(Activation)
WEIGHTS = {name: random_tensor(128, 64, seed=i, scale=0.2) for i, name in enumerate("gu")}
WEIGHTS |= {name: random_tensor(128, seed=i, scale=0.5) for i, name in enumerate("bc", 2)}


def check(text: str, tokens: int) -> None:
    x = random_tensor(1, tokens, 64, seed=5).astype(ml_dtypes.bfloat16)
    check_levels(text, [x], weights=WEIGHTS)


def gated(tokens: int, act: str, biases: str = "") -> str:
    x, y, w, b = f"tensor<1x{tokens}x64xbf16>", f"tensor<1x{tokens}x128xbf16>", "tensor<128x64xbf16>", "tensor<128xbf16>"
    named = "".join(
        f'%{name} = "llm.weight"() <{{name = "{name}"}}> : () -> {w if name in "gu" else b}\n' for name in f"gu{biases}"
    )
    segments = f"1, 1, 1, {int('b' in biases)}, {int('c' in biases)}"
    operands = ", ".join(f"%{name}" for name in f"xgu{biases}")
    types = ", ".join([x, w, w, *(b for _ in biases)])
    return f"""
      {named}
      %y = "llm.gated_linear"({operands}) <{{act = "{act}", operandSegmentSizes = array<i32: {segments}>}}>
        : ({types}) -> {y}
    """


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("tokens", [1, 70])
def test_every_activation_gates(tokens, act):
    check(gated(tokens, act), tokens)


@pytest.mark.parametrize("biases", ["b", "c", "bc"])
@pytest.mark.parametrize("tokens", [1, 70])
def test_either_product_may_have_a_bias(tokens, biases):
    check(gated(tokens, "gelu", biases), tokens)


@pytest.mark.parametrize("tokens", [1, 70])
def test_what_comes_from_elsewhere_is_gated_too(tokens):
    row = f"tensor<1x{tokens}x64xbf16>"
    text = f"""
      %a = "llm.mul"(%x) <{{value = 2.0 : f64}}> : ({row}) -> {row}
      %y = "llm.swiglu"(%x, %a) <{{act = "gelu_tanh"}}> : ({row}, {row}) -> {row}
    """
    check(text, tokens)


@pytest.mark.parametrize("tokens", [1, 70])
def test_rows_of_one_weight_are_weights(tokens):
    """Wherever they begin, and one in two of them."""
    x, y = f"tensor<1x{tokens}x64xbf16>", f"tensor<1x{tokens}x40xbf16>"
    whole, part = "tensor<128x64xbf16>", "tensor<40x64xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "g"}}> : () -> {whole}
      %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<128xbf16>
      %g = "llm.slice_weights"(%w) <{{start = 3 : i64, stop = 43 : i64}}> : ({whole}) -> {part}
      %u = "llm.slice_weights"(%w) <{{start = 45 : i64, stop = 125 : i64, step = 2 : i64}}> : ({whole}) -> {part}
      %c = "llm.slice_weights"(%b) <{{start = 45 : i64, stop = 125 : i64, step = 2 : i64}}> : (tensor<128xbf16>) -> tensor<40xbf16>
      %y = "llm.gated_linear"(%x, %g, %u, %c) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0, 1>}}>
        : ({x}, {part}, {part}, tensor<40xbf16>) -> {y}
    """
    check(text, tokens)
