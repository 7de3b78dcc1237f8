"""Arithmetic and activations of one token and of many, as the model says and as the chip computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import ml_dtypes
import numpy as np
import pytest

from compiler.diagnostics import CompileError
from dialects.activations import Activation
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()

UNARY = {
    **{f"act {kind}": f'act"(%x) <{{kind = "{kind}"}}>' for kind in get_args(Activation)},
    "softcap": 'softcap"(%x) <{cap = 3.0 : f64}>',
    "clamp": 'clamp"(%x) <{min = -0.5 : f64, max = 0.25 : f64}>',
    "clamp below": 'clamp"(%x) <{max = 0.25 : f64}>',
    "neg": 'neg"(%x)',
    "square": 'pow"(%x) <{exponent = 2.0 : f64}>',
    "cube": 'pow"(%x) <{exponent = 3.0 : f64}>',
    "reciprocal": 'pow"(%x) <{exponent = -1.0 : f64}>',
    **{name: f'{name}"(%x) <{{value = 3.0 : f64}}>' for name in ("add", "sub", "mul", "div")},
}
TOKENS = [1, 70]


def check(text: str, tokens: int, weights: Mapping[str, np.ndarray] = {}, shift: float = 0.0) -> None:
    """Each level computes the same, rounded once to bf16."""
    x = (2 * random_tensor(1, tokens, 128, seed=3) + shift).astype(ml_dtypes.bfloat16)
    check_levels(text, [x], weights=weights)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("tokens", TOKENS)
def test_functions_of_one_array(tokens, name):
    row = f"tensor<1x{tokens}x128xbf16>"
    check(f'%y = "llm.{UNARY[name]} : ({row}) -> {row}', tokens)


@pytest.mark.parametrize("name", ["rsqrt", "root"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_roots(tokens, name):
    row = f"tensor<1x{tokens}x128xbf16>"
    op = {"rsqrt": 'rsqrt"(%x)', "root": 'pow"(%x) <{exponent = 0.5 : f64}>'}[name]
    check(f'%y = "llm.{op} : ({row}) -> {row}', tokens, shift=10)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("weight_first", [False, True])
@pytest.mark.parametrize("tokens", TOKENS)
def test_a_row_of_weights_meets_all_tokens(tokens, weight_first, name):
    row, width = f"tensor<1x{tokens}x128xbf16>", "tensor<128xbf16>"
    pair = ("%w", "%x") if weight_first else ("%x", "%w")
    types = (width, row) if weight_first else (row, width)
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {width}
      %y = "llm.{name}"({", ".join(pair)}) : ({", ".join(types)}) -> {row}
    """
    check(text, tokens, {"w": random_tensor(128, seed=1, scale=0.1) + 1}, shift=12)


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_row_may_be_made_of_weights_by_numbers(tokens):
    row, width = f"tensor<1x{tokens}x128xbf16>", "tensor<128xbf16>"
    text = f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {width}
      %p = "llm.add"(%w) <{{value = 1.0 : f64}}> : ({width}) -> {width}
      %s = "llm.act"(%p) <{{kind = "sigmoid"}}> : ({width}) -> {width}
      %y = "llm.mul"(%x, %s) : ({row}, {width}) -> {row}
    """
    check(text, tokens, {"w": random_tensor(128, seed=1)})


@pytest.mark.parametrize("tokens", TOKENS)
def test_quotients_of_two_arrays(tokens):
    row = f"tensor<1x{tokens}x128xbf16>"
    text = f"""
      %a = "llm.sub"(%x) <{{value = 1.0 : f64}}> : ({row}) -> {row}
      %y = "llm.div"(%a, %x) : ({row}, {row}) -> {row}
    """
    check(text, tokens, shift=12)


def test_a_power_without_a_formula_is_refused():
    row = "tensor<1x70x128xbf16>"
    module, _ = parse_ir(f'%y = "llm.pow"(%x) <{{exponent = 1.7 : f64}}> : ({row}) -> {row}')
    as_net(module)
    with pytest.raises(CompileError, match=r"'llm\.pow' op exponent 1\.7 has no lowering"):
        PassManager(parse_pipeline("llm-to-tensor")).run(module)
