"""Flags that say bits of linears, read back as the command does."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from driver.budget.keep_flags import flags_for, patterns, shortest, text_of
from driver.options import ConvertOptions
from driver.precision import Linear, Precision, linears_of
from driver.rules import Rule, head_rule
from frontend.importer import import_model
from tests.frontend.oracle import SMALL


@pytest.fixture(scope="module")
def linears() -> tuple[list[Linear], object]:
    model = import_model({**SMALL, "model_type": "llama", "num_hidden_layers": 13}, 8)
    return [linear for nets in model.nets for linear in linears_of(nets)], model


@pytest.mark.parametrize("seed", range(4))
def test_flags_say_what_was_chosen_and_nothing_else(linears, seed):
    known, model = linears
    rng = np.random.default_rng(seed)
    chosen = [(linear, int(bits)) for linear, bits in zip(known, rng.choice([4, 8, 16], len(known)), strict=True)]
    head, keep = flags_for(chosen)
    assert head is not None
    precision = Precision.of(model, [head_rule(head), *map(Rule.parse, keep)], 32)
    for linear, bits in chosen:
        assert precision.chosen.get(linear.parameter, 4) == bits


def test_linears_that_are_not_chosen_are_left_alone(linears):
    known, _ = linears
    chosen = [(linear, 8) for linear in known if linear.instance.layer in (0, 3)]
    head, keep = flags_for(chosen[:1])
    assert (head, keep) == (None, ["model.layers.0.self_attn.q_proj=8"])
    assert flags_for([(linear, 4) for linear in known if linear.in_layer]) == (None, [])


def test_numbers_of_layers_are_few_patterns():
    assert [*patterns([0, 1, 2, 9, 10, 27, 28, 100])] == ["[0129]", "10", "2[78]", "100"]
    assert shortest(dict.fromkeys(range(30), 8)) == [("*", 8)]
    assert shortest({number: 16 if number == 7 else 8 for number in range(30)}) == [("*", 8), ("7", 16)]
    assert shortest(dict.fromkeys(range(30), 4)) == []


def test_a_shell_reads_what_is_printed(tmp_path):
    keep = ["model.layers.[01].mlp.up_proj=8", "model.layers.*.self_attn.v_proj=16"]
    options = ConvertOptions(tmp_path / "model", 64, "w4bf16", lm_head_quantize=8, keep=keep, out_dir=Path("out"))
    words = shlex.split(text_of(options))
    assert words == ["--lm_head_quantize", "8", "--keep", keep[0], "--keep", keep[1]]
