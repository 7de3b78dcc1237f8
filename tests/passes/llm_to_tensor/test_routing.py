"""Routers and experts, of one token and of many, at every level."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.weights.part import part_of
from passes import load_all
from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

load_all()

EXPERTS, CHOSEN, HIDDEN, INNER = 6, 3, 128, 64
TOKENS = [1, 70]
WEIGHTS = {
    "router": random_tensor(EXPERTS, HIDDEN, seed=1, scale=0.2),
    "one": random_tensor(1, HIDDEN, seed=10, scale=0.2),
    "bias": random_tensor(EXPERTS, seed=2),
    "gate": random_tensor(EXPERTS, INNER, HIDDEN, seed=3, scale=0.1),
    "up": random_tensor(EXPERTS, INNER, HIDDEN, seed=4, scale=0.1),
    "down": random_tensor(EXPERTS, HIDDEN, INNER, seed=5, scale=0.2),
    "gate_bias": random_tensor(EXPERTS, INNER, seed=6),
    "up_bias": random_tensor(EXPERTS, INNER, seed=7),
    "down_bias": random_tensor(EXPERTS, HIDDEN, seed=8),
}


class Named(dict):
    """Parameters, and parts of them by name."""

    def __missing__(self, name: str) -> np.ndarray:
        part = part_of(name)
        if part is None:
            raise KeyError(name)
        return part.of(self[part.parameter][part.experts])


def weight(name: str) -> str:
    shape = "x".join(map(str, WEIGHTS[name].shape))
    return f'%{name} = "llm.weight"() <{{name = "{name}"}}> : () -> tensor<{shape}xbf16>'


def check(body: str, tokens: int, names: str = "router", **settings: float) -> None:
    """`body` makes %y of the logits %l [S, N] of the router, or of the states %h [S, K]."""
    t, n, k = tokens, EXPERTS, HIDDEN
    text = f"""
      {chr(10).join(map(weight, names.split()))}
      %h = "llm.reshape"(%x) <{{shape = array<i64: {t}, {k}>}}> : (tensor<1x{t}x{k}xbf16>) -> tensor<{t}x{k}xbf16>
      %l = "llm.linear"(%h, %router) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
        : (tensor<{t}x{k}xbf16>, tensor<{n}x{k}xbf16>) -> tensor<{t}x{n}xbf16>
      {body.replace("TOKENS", str(t))}
      "func.return"(%y) : (tensor<1x{t}x{k}xbf16>) -> ()
    """
    check_levels(text, [clear_tokens(tokens)], weights=Named(WEIGHTS), **{"cosine": 0.9999, **settings})


def clear_tokens(count: int) -> np.ndarray:
    """States [1, tokens, K] whose logits, and scores, are so far from each other that rounding turns none around."""
    x = random_tensor(20 * count, HIDDEN, seed=9).astype(ml_dtypes.bfloat16)
    logits = x.astype(np.float64) @ WEIGHTS["router"].T
    scores = 1 / (1 + np.exp(-logits)) + WEIGHTS["bias"]
    gaps = [np.diff(np.sort(each, axis=1), axis=1).min(axis=1) for each in (logits, scores)]
    clear = x[(gaps[0] > 0.05) & (gaps[1] > 0.02)][:count]
    assert len(clear) == count
    return clear[None]


TOPK = (
    '%v, %i = "llm.topk"(%l) <{k = 3 : i64}>'
    " : (tensor<TOKENSx6xbf16>) -> (tensor<TOKENSx3xbf16>, tensor<TOKENSx3xi32>)\n"
)


def experts(limits: str = "", gated: bool = True, biases: bool = False, act: str = "silu") -> str:
    """Experts chosen by the logits, weighed by their softmax."""
    up, down = f"tensor<{EXPERTS}x{INNER}x{HIDDEN}xbf16>", f"tensor<{EXPERTS}x{HIDDEN}x{INNER}xbf16>"
    inner, outer = f"tensor<{EXPERTS}x{INNER}xbf16>", f"tensor<{EXPERTS}x{HIDDEN}xbf16>"
    operands = [
        *(["%gate"] if gated else []),
        "%up",
        "%down",
        *(["%gate_bias"] if gated and biases else []),
        *(["%up_bias", "%down_bias"] if biases else []),
    ]
    types = {"%gate": up, "%up": up, "%down": down, "%gate_bias": inner, "%up_bias": inner, "%down_bias": outer}
    sizes = [1, 1, 1, gated, 1, 1, gated and biases, biases, biases]
    return TOPK + f"""
      %w = "llm.softmax"(%v) <{{axis = 1 : i64}}> : (tensor<TOKENSx3xbf16>) -> tensor<TOKENSx3xbf16>
      %e = "llm.experts"(%h, %i, %w, {", ".join(operands)}) <{{act = "{act}"{limits},
        operandSegmentSizes = array<i32: {", ".join(str(int(size)) for size in sizes)}>}}>
        : (tensor<TOKENSx128xbf16>, tensor<TOKENSx3xi32>, tensor<TOKENSx3xbf16>,
           {", ".join(types[name] for name in operands)}) -> tensor<TOKENSx128xbf16>
      %y = "llm.reshape"(%e) <{{shape = array<i64: 1, TOKENS, 128>}}>
        : (tensor<TOKENSx128xbf16>) -> tensor<1xTOKENSx128xbf16>
    """


ALL = "router gate up down"


@pytest.mark.parametrize("tokens", TOKENS)
def test_each_token_goes_through_the_experts_it_chose(tokens):
    check(experts(), tokens, ALL)


@pytest.mark.parametrize("tokens", TOKENS)
def test_products_of_experts_may_have_biases_and_gates_limits(tokens):
    limits = ", limit = 0.5 : f64, offset = 1.0 : f64"
    names = f"{ALL} gate_bias up_bias down_bias"
    check(experts(limits, biases=True, act="quick_gelu"), tokens, names, cosine=0.9999)


@pytest.mark.parametrize("tokens", TOKENS)
def test_experts_without_a_gate(tokens):
    check(experts(gated=False, act="relu2"), tokens, "router up down")


@pytest.mark.parametrize("tokens", TOKENS)
def test_a_choice_among_groups(tokens):
    """Two of three groups are left, and the largest of them is taken from the logits themselves."""
    body = """
      %g = "llm.reshape"(%l) <{shape = array<i64: TOKENS, 3, 2>}> : (tensor<TOKENSx6xbf16>) -> tensor<TOKENSx3x2xbf16>
      %best, %unused = "llm.topk"(%g) <{k = 1 : i64}>
        : (tensor<TOKENSx3x2xbf16>) -> (tensor<TOKENSx3x1xbf16>, tensor<TOKENSx3x1xi32>)
      %sum = "llm.reduce_sum"(%best) <{axis = 2 : i64}> : (tensor<TOKENSx3x1xbf16>) -> tensor<TOKENSx3x1xbf16>
      %flat = "llm.reshape"(%sum) <{shape = array<i64: TOKENS, 3>}> : (tensor<TOKENSx3x1xbf16>) -> tensor<TOKENSx3xbf16>
      %a, %places = "llm.topk"(%flat) <{k = 2 : i64}>
        : (tensor<TOKENSx3xbf16>) -> (tensor<TOKENSx2xbf16>, tensor<TOKENSx2xi32>)
      %marks = "llm.multi_hot"(%places) <{size = 3 : i64}> : (tensor<TOKENSx2xi32>) -> tensor<TOKENSx3xbf16>
      %each = "llm.reshape"(%marks) <{shape = array<i64: TOKENS, 3, 1>}> : (tensor<TOKENSx3xbf16>) -> tensor<TOKENSx3x1xbf16>
      %wide = "llm.broadcast"(%each) <{shape = array<i64: TOKENS, 3, 2>}> : (tensor<TOKENSx3x1xbf16>) -> tensor<TOKENSx3x2xbf16>
      %mask = "llm.reshape"(%wide) <{shape = array<i64: TOKENS, 6>}> : (tensor<TOKENSx3x2xbf16>) -> tensor<TOKENSx6xbf16>
      %no = "llm.logical_not"(%mask) : (tensor<TOKENSx6xbf16>) -> tensor<TOKENSx6xbf16>
      %left = "llm.masked_fill"(%l, %no) <{value = 0xFFF0000000000000 : f64}>
        : (tensor<TOKENSx6xbf16>, tensor<TOKENSx6xbf16>) -> tensor<TOKENSx6xbf16>
      %b, %i = "llm.topk"(%left) <{k = 3 : i64}> : (tensor<TOKENSx6xbf16>) -> (tensor<TOKENSx3xbf16>, tensor<TOKENSx3xi32>)
      %v = "llm.take_along"(%l, %i) : (tensor<TOKENSx6xbf16>, tensor<TOKENSx3xi32>) -> tensor<TOKENSx3xbf16>
    """
    check(body + experts().replace(TOPK, ""), tokens, ALL)


@pytest.mark.parametrize("tokens", TOKENS)
def test_scores_with_a_correction_and_a_factor(tokens):
    body = """
      %s = "llm.act"(%l) <{kind = "sigmoid"}> : (tensor<TOKENSx6xbf16>) -> tensor<TOKENSx6xbf16>
      %c = "llm.add"(%s, %bias) : (tensor<TOKENSx6xbf16>, tensor<6xbf16>) -> tensor<TOKENSx6xbf16>
      %b, %i = "llm.topk"(%c) <{k = 3 : i64}> : (tensor<TOKENSx6xbf16>) -> (tensor<TOKENSx3xbf16>, tensor<TOKENSx3xi32>)
      %t = "llm.take_along"(%s, %i) : (tensor<TOKENSx6xbf16>, tensor<TOKENSx3xi32>) -> tensor<TOKENSx3xbf16>
      %sum = "llm.reduce_sum"(%t) <{axis = 1 : i64}> : (tensor<TOKENSx3xbf16>) -> tensor<TOKENSx1xbf16>
      %q = "llm.div"(%t, %sum) : (tensor<TOKENSx3xbf16>, tensor<TOKENSx1xbf16>) -> tensor<TOKENSx3xbf16>
      %v = "llm.mul"(%q) <{value = 2.5 : f64}> : (tensor<TOKENSx3xbf16>) -> tensor<TOKENSx3xbf16>
    """
    softmax = '%w = "llm.softmax"(%v) <{axis = 1 : i64}> : (tensor<TOKENSx3xbf16>) -> tensor<TOKENSx3xbf16>'
    plain = experts().replace(TOPK, "").replace(softmax, "").replace("%w", "%v")
    check(body + plain, tokens, f"{ALL} bias")


@pytest.mark.parametrize("tokens", TOKENS)
def test_an_expert_for_all_with_a_gate_of_one_number(tokens):
    """The number meets all items of the token, also where they lie over the lanes."""
    body = """
      %n = "llm.linear"(%h, %one) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
        : (tensor<TOKENSx128xbf16>, tensor<1x128xbf16>) -> tensor<TOKENSx1xbf16>
      %s = "llm.act"(%n) <{kind = "sigmoid"}> : (tensor<TOKENSx1xbf16>) -> tensor<TOKENSx1xbf16>
      %m = "llm.mul"(%s, %h) : (tensor<TOKENSx1xbf16>, tensor<TOKENSx128xbf16>) -> tensor<TOKENSx128xbf16>
      %y = "llm.reshape"(%m) <{shape = array<i64: 1, TOKENS, 128>}>
        : (tensor<TOKENSx128xbf16>) -> tensor<1xTOKENSx128xbf16>
    """
    check(body, tokens, "router one")


def test_sums_over_other_axes_are_refused_by_op():
    body = """
      %s = "llm.reduce_sum"(%h) <{axis = 0 : i64}> : (tensor<70x128xbf16>) -> tensor<1x128xbf16>
      %a = "llm.add"(%h, %s) : (tensor<70x128xbf16>, tensor<1x128xbf16>) -> tensor<70x128xbf16>
      %y = "llm.reshape"(%a) <{shape = array<i64: 1, 70, 128>}> : (tensor<70x128xbf16>) -> tensor<1x70x128xbf16>
    """
    with pytest.raises(CompileError, match=r"'llm.reduce_sum' op over axis 0 of .*, not the last, has no lowering"):
        check(body, 70)
