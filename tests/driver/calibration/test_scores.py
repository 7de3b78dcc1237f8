"""Which parameters make scores, as the graphs of models tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driver.calibration.graphs import scores_of_layers
from driver.calibration.scores import Scores, Side, scores_of
from driver.convert import compiled_job
from driver.options import ConvertOptions
from frontend.binding import Weights
from frontend.load import open_model
from passes import load_all
from tests.driver.calibration.given import Given
from tests.frontend.test_calibration import saved
from tests.helpers import parse_ir


def found_in(folder: Path, name: str) -> list[Scores]:
    """Those of the first layer, by names in it."""
    load_all()
    saved(folder / "model", name)
    options = ConvertOptions(folder / "model", 64, "w4bf16", q_group_size=32, out_dir=folder / "out", jobs=1)
    job = compiled_job(options, open_model(options.model_path))
    first = "model.layers.0.self_attn."
    found = scores_of_layers(job)
    assert len(found) in (0, 3)
    return [each.bound(lambda name: name.removeprefix(first)) for each in found[:1]]


@pytest.mark.parametrize(
    ("name", "query", "key"),
    [
        ("llama", Side("q_proj.weight"), Side("k_proj.weight")),
        ("qwen2", Side("q_proj.weight", "q_proj.bias"), Side("k_proj.weight")),
        ("qwen3", Side("q_proj.weight", gains="q_norm.weight"), Side("k_proj.weight", gains="k_norm.weight")),
        ("olmo2", Side("q_proj.weight", gains="q_norm.weight"), Side("k_proj.weight", gains="k_norm.weight")),
        ("gemma3_text", Side("q_proj.weight", None, "q_norm.weight", 1.0), Side("k_proj.weight", None, "k_norm.weight", 1.0)),
    ],
)  # fmt: skip
def test_queries_and_keys_are_found_with_what_is_added_and_multiplied(tmp_path, name, query, key):
    size = {"qwen3": 64, "gemma3_text": 64}.get(name, 32)
    assert found_in(tmp_path, name) == [Scores(query, key, (2, 2), size)]


@pytest.mark.parametrize("name", ["phi3", "stablelm", "olmo"])
def test_no_other_rows_are(tmp_path, name):
    """Here those of queries, keys and values are one weight; normed by their mean too; or clipped."""
    assert found_in(tmp_path, name) == []


ATTENTION = """
  %wq = "llm.weight"() <{name = "q"}> : () -> tensor<4x4xbf16>
  %q = "llm.linear"(%x, %wq) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}> : (tensor<1x2x4xbf16>, tensor<4x4xbf16>) -> tensor<1x2x4xbf16>
  %wk = "llm.weight"() <{name = "k"}> : () -> tensor<4x4xbf16>
  %k = "llm.linear"(%x, %wk) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}> : (tensor<1x2x4xbf16>, tensor<4x4xbf16>) -> tensor<1x2x4xbf16>
  %q4 = "llm.reshape"(%q) <{shape = array<i64: 1, 2, 2, 2>}> : (tensor<1x2x4xbf16>) -> tensor<1x2x2x2xbf16>
  %k4 = "llm.reshape"(%k) <{shape = array<i64: 1, 2, 2, 2>}> : (tensor<1x2x4xbf16>) -> tensor<1x2x2x2xbf16>
  %qh = "llm.permute"(%q4) <{order = array<i64: 0, 2, 1, 3>}> : (tensor<1x2x2x2xbf16>) -> tensor<1x2x2x2xbf16>
  %kh = "llm.permute"(%k4) <{order = array<i64: 0, 2, 1, 3>}> : (tensor<1x2x2x2xbf16>) -> tensor<1x2x2x2xbf16>
  %y = "llm.attention"(%qh, %kh, %kh) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>, scale = 1.0 : f64, visible = #llm.visible<kind = "causal">}> : (tensor<1x2x2x2xbf16>, tensor<1x2x2x2xbf16>, tensor<1x2x2x2xbf16>) -> tensor<1x2x2x2xbf16>
"""


def test_a_head_is_rows_next_to_each_other():
    assert scores_of(parse_ir(ATTENTION)[0]) == [Scores(Side("q"), Side("k"), (1, 1), 2)]
    assert scores_of(parse_ir(ATTENTION.replace("0, 2, 1, 3", "0, 3, 1, 2"))[0]) == []


def test_both_are_made_of_the_same():
    other = ATTENTION.replace('"llm.linear"(%x, %wk)', '"llm.linear"(%z, %wk)')
    assert other != ATTENTION
    assert scores_of(parse_ir(other)[0]) == []
    assert scores_of(parse_ir(ATTENTION.replace('name = "k"', 'name = "k{0:4:1}"'))[0]) == []


NORM = """
  %n = "llm.weight"() <{name = "n"}> : () -> tensor<2xbf16>
  %qn = "llm.rms_norm"(%qh, %n) <{eps = 1.0e-06 : f64}> : (tensor<1x2x2x2xbf16>, tensor<2xbf16>) -> tensor<1x2x2x2xbf16>
"""


def test_one_norm_is_known_to_stand_between():
    head, permuted, rest = ATTENTION.partition('  %kh = "llm.permute"')
    once = head + NORM + permuted + rest.replace("(%qh, %kh", "(%qn, %kh")
    assert scores_of(parse_ir(once)[0]) == [Scores(Side("q", gains="n"), Side("k"), (1, 1), 2)]
    assert scores_of(parse_ir(once.replace('name = "n"', 'name = "n{0:2:1}"'))[0]) == []
    second = NORM.replace("%n ", "%m ").replace("%qh, %n", "%qn, %m").replace("%qn =", "%qm =")
    twice = head + NORM + second + permuted + rest.replace("(%qh, %kh", "(%qm, %kh")
    assert scores_of(parse_ir(twice)[0]) == []


def test_nothing_is_added_to_rows_but_a_bias():
    added = ATTENTION.replace('"llm.linear"(%x, %wq)', '"llm.linear"(%x, %wq, %x)')
    added = added.replace("1, 1, 0, 0>}> : (tensor<1x2x4xbf16>, tensor<4x4xbf16>)", "1, 1, 0, 1>}> : (tensor<1x2x4xbf16>, tensor<4x4xbf16>, tensor<1x2x4xbf16>)", 1)  # fmt: skip
    assert scores_of(parse_ir(added)[0]) == []


def test_a_side_is_what_its_parameters_are():
    values = {"b": np.arange(8.0), "n": np.array([1.0, -2, 0.5, 1])}
    weights, weight = Weights({name: Given(each) for name, each in values.items()}), np.ones((8, 3), np.float32)
    made = Side("w", "b", "n", 1.0).projected(weight, weights, 4)
    assert made.weight is weight
    assert made.bias is not None
    np.testing.assert_array_equal(made.bias, values["b"])
    np.testing.assert_array_equal(made.gains, [values["n"] + 1])
    plain = Side("w").projected(weight, weights, 4)
    assert plain.bias is None
    np.testing.assert_array_equal(plain.gains, np.ones((1, 4)))
