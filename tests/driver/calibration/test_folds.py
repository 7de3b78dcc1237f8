"""Where factors of a linear's inputs can go."""

from __future__ import annotations

from driver.calibration.folds import Fold, folds_of
from tests.helpers import parse_ir

NORM = """
  %w = "llm.weight"() <{name = "norm.weight"}> : () -> tensor<8xbf16>
  %n = "llm.rms_norm"(%x, %w) <{eps = 1.0e-06 : f64, offset = 1.0 : f64}> : (tensor<1x4x8xbf16>, tensor<8xbf16>) -> tensor<1x4x8xbf16>
"""


def linear(result: str, x: str, name: str) -> str:
    return f"""
  %w_{result} = "llm.weight"() <{{name = "{name}"}}> : () -> tensor<8x8xbf16>
  %{result} = "llm.linear"(%{x}, %w_{result}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : (tensor<1x4x8xbf16>, tensor<8x8xbf16>) -> tensor<1x4x8xbf16>
"""


def other(result: str, x: str) -> str:
    return f'\n  %{result} = "llm.act"(%{x}) <{{kind = "silu"}}> : (tensor<1x4x8xbf16>) -> tensor<1x4x8xbf16>\n'


def folds(text: str) -> list[Fold]:
    return folds_of(parse_ir(text)[0])


def test_all_linears_behind_a_norm_read_what_it_makes():
    found = folds(NORM + linear("a", "n", "q.weight") + linear("b", "n", "k.weight"))
    assert [*map(set, (each.readers for each in found))] == [{"q.weight", "k.weight"}]
    assert (found[0].vectors, found[0].offset) == (("norm.weight",), 1.0)


def test_nothing_is_divided_that_something_else_reads():
    assert folds(NORM + linear("a", "n", "q.weight") + other("b", "n")) == []
    assert folds(NORM + linear("a", "n", "q.weight{0:8:1}")) == []
    assert folds(NORM.replace("norm.weight", "/model.norm.weight") + linear("a", "n", "q.weight")) == []
    twice = linear("a", "n", "q.weight") + linear("b", "x", "q.weight")
    assert folds(NORM + twice) == []


GATE = """
  %y = "llm.swiglu"(%g, %u) <{act = "silu"}> : (tensor<1x4x8xbf16>, tensor<1x4x8xbf16>) -> tensor<1x4x8xbf16>
"""


def test_rows_of_what_a_gate_multiplies_are_divided_for_what_reads_it():
    found = folds(linear("u", "x", "up.weight") + GATE + linear("d", "y", "down.weight"))
    assert found == [Fold(("down.weight",), (), rows=("up.weight",))]


def test_rows_stay_where_something_else_follows_from_them():
    up, down = linear("u", "x", "up.weight"), linear("d", "y", "down.weight")
    assert folds(up + GATE + down + other("b", "u")) == []
    assert folds(up + GATE + down + other("b", "y")) == []
    assert folds(other("u", "x") + GATE + down) == []
    bias = up.replace('"llm.linear"(%x, %w_u)', '"llm.linear"(%x, %w_u, %bias)').replace(
        "1, 1, 0, 0>}> : (tensor<1x4x8xbf16>, tensor<8x8xbf16>)",
        "1, 1, 1, 0>}> : (tensor<1x4x8xbf16>, tensor<8x8xbf16>, tensor<8xbf16>)",
    )
    assert bias != up
    assert folds(bias + GATE + down) == []


def test_names_are_bound_to_a_layer():
    bound = Fold(("q", "k"), ("norm",), 1.0, ("up",)).bound(lambda name: f"layers.3.{name}")
    assert bound == Fold(("layers.3.q", "layers.3.k"), ("layers.3.norm",), 1.0, ("layers.3.up",))
    assert bound.names == ("layers.3.q", "layers.3.k", "layers.3.norm", "layers.3.up")
