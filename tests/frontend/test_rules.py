"""Numbers of a config.json that no model computes with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from frontend.rules import check_numbers

PATH = Path("m/config.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rms_norm_eps", math.nan, "rms_norm_eps is NaN, expected a finite number"),
        ("rms_norm_eps", math.inf, "rms_norm_eps is Infinity, expected a finite number"),
        ("layer_norm_epsilon", -1e-5, "layer_norm_epsilon is -1e-05, expected a number between 0 and 1"),
        ("rms_norm_eps", 0, "rms_norm_eps is 0, expected a number between"),
        ("rms_norm_eps", 5.0, "rms_norm_eps is 5.0, expected a number between"),
        ("rms_norm_eps", "1e-5", 'rms_norm_eps is "1e-5", expected a number between'),
        ("partial_rotary_factor", 1.5, "partial_rotary_factor is 1.5, expected a number above 0 and up to 1"),
        ("rope_theta", 0, "rope_theta is 0, expected a number above 0"),
        ("rope_theta", -10000.0, "rope_theta is -10000.0, expected a number above 0"),
        ("rope_theta", True, "rope_theta is true, expected a number above 0"),
        ("hidden_size", 256.0, "hidden_size is 256.0, expected a whole number above 0"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0, expected a whole number above 0"),
        ("num_attention_heads", True, "num_attention_heads is true, expected a whole number"),
        ("vocab_size", -5, "vocab_size is -5, expected a whole number"),
        ("max_position_embeddings", "many", 'max_position_embeddings is "many", expected a whole number'),
        ("max_position_embeddings", 10**9, "max_position_embeddings is 1000000000, expected a whole number from 1"),
        ("whatever", 10**40, "whatever is 1000.*expected a finite number"),
        ("whatever", [1, [1e300]], "whatever is 1e\\+300, expected a finite number"),
        ("rope_scaling", {"factor": math.nan}, "rope_scaling.factor is NaN, expected a finite number"),
        ("rope_scaling", {"factor": -2.0}, "rope_scaling.factor is -2.0, expected a number above 0"),
        (
            "rope_scaling",
            {"long_factor": [1, -1]},
            "rope_scaling.long_factor is .*, expected a list of numbers",
        ),
        ("rope_scaling", {"short_factor": 3}, "rope_scaling.short_factor is 3, expected a list of numbers"),
        (
            "rope_parameters",
            {"full_attention": {"rope_theta": 0.0}},
            "rope_parameters.full_attention.rope_theta is 0.0, expected",
        ),
    ],
)
def test_a_number_that_is_none_is_refused_by_key(key, value, message):
    with pytest.raises(UserError, match=f"m/config.json: {message}") as caught:
        check_numbers({key: value}, PATH)
    assert len(str(caught.value)) < 300


def test_ordinary_numbers_pass():
    values = {
        "hidden_size": 256,
        "head_dim": None,
        "intermediate_size": [256, 512],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e11,
        "model_max_length": 10**30,
        "rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": None, "truncate": False},
        "tie_word_embeddings": True,
        "vision": {"hidden_size": 0},
    }
    check_numbers(values, PATH)


def test_keys_are_shown_printable(tmp_path):
    with pytest.raises(UserError) as caught:
        check_numbers(json.loads('{"\\u001b[31m": NaN}'), PATH)
    assert str(caught.value).isprintable()
