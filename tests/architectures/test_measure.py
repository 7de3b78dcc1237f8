"""The rows of `make architectures`: what is right, what is refused, and what is wrong is told as such."""

from __future__ import annotations

import numpy as np
import pytest

from frontend.config import SEEING_TYPES, TESTED_TYPES
from runtime_sim.launch.session import Session
from tests.architectures import seeing
from tests.architectures.configs import CONFIGS, SEEING
from tests.architectures.measure import COUNT, measure


def test_a_right_model_has_its_numbers(tmp_path):
    row = measure("qwen2", tmp_path)
    assert not row.bad, row.line()
    assert (row.tokens, row.layers) == (COUNT, 1)
    assert row.error < 1e-4
    assert row.cosine > 0.999
    assert "rope" in row.ops
    assert f"{COUNT}/{COUNT}" in row.line()


@pytest.mark.parametrize("name", SEEING)
def test_a_right_model_that_sees_has_its_numbers(tmp_path, name):
    row = measure(name, tmp_path)
    assert not row.bad, row.line()
    assert row.tokens == COUNT
    assert row.error < 1e-4
    assert row.cosine > 0.999


def test_wrong_features_are_told(tmp_path, monkeypatch):
    original = seeing.features_of
    monkeypatch.setattr(seeing, "features_of", lambda *given: 1.01 * original(*given))
    row = measure("internvl", tmp_path)
    assert row.bad
    assert row.error > 5e-3


def test_what_is_refused_has_its_message(tmp_path):
    row = measure("falcon", tmp_path)
    assert not row.bad
    assert row.line().startswith("falcon               refused: config.json: cannot build the falcon model")


def test_a_wrong_token_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "generate", lambda self, prompt, count: [3] * count)
    row = measure("qwen2", tmp_path)
    assert row.bad
    assert "token 3 after 20" in row.line()


def test_a_crash_is_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", lambda seed: 1 / 0)
    row = measure("qwen2", tmp_path)
    assert row.bad
    assert "CRASHED: ZeroDivisionError" in row.line()


def test_the_rows_are_the_types_that_are_said_to_be_tested():
    assert set(TESTED_TYPES) == {model_type for model_type, _ in CONFIGS.values()}
    assert set(SEEING_TYPES) - {"internvl_chat"} == set(SEEING)  # which is internvl by other names
