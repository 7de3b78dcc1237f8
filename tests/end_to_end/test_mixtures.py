"""Mixtures of experts from a checkpoint to tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.tool.verify import verify_file
from tests.architectures.configs import config_of
from tests.architectures.measure import measure, write
from tests.frontend.oracle import reference_model


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_a_mixture_of_experts_says_what_hugging_face_says(tmp_path: Path, name: str):
    row = measure(name, tmp_path)
    assert not row.bad, row.line()
    assert row.tokens == 8
    assert row.cosine > 0.9999
    assert "experts" in row.ops


def test_experts_in_four_bits_compute_what_the_model_does(tmp_path: Path):
    """Of many for each token: one that rounding exchanges for another weighs little."""
    config = {**config_of("qwen3_moe"), "num_hidden_layers": 1, "num_experts_per_tok": 6}
    write(reference_model(config), tmp_path / "model")
    file = convert(ConvertOptions(tmp_path / "model", 32, "w4bf16", q_group_size=64, out_dir=tmp_path / "out"))
    assert file is not None
    assert verify_file(file, tmp_path / "model") == 0
