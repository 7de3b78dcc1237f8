"""The Fisher information of weights, beside the divergence that noise in them brings to the Hugging Face model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from frontend.calibration import mean_squares
from frontend.fisher import run_back
from tests.frontend.test_calibration import opened, saved

TOKENS = np.random.default_rng(1).integers(0, 256, (12, 32))
NOISE = {"model.layers.0.self_attn.v_proj.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"}


def measured(folder: Any, wanted: Any) -> dict[str, np.ndarray]:
    native, weights = opened(folder)
    found: dict[str, list[np.ndarray]] = {}
    run_back(native, weights, TOKENS, wanted, lambda name, rows, fisher: found.setdefault(name, []).append(fisher))
    assert all(value.device.type == "meta" and not value.requires_grad for value in native.parameters())
    return {name: np.concatenate(parts) for name, parts in found.items()}


@torch.no_grad()
def divergence(model: Any, name: str, noise: torch.Tensor) -> float:
    """Per token, of the model with noise in a parameter from the one without."""
    before = model(torch.from_numpy(TOKENS)).logits.log_softmax(-1)
    parameter = model.get_parameter(name)
    kept = parameter.data
    parameter.data = kept + noise
    after = model(torch.from_numpy(TOKENS)).logits.log_softmax(-1)
    parameter.data = kept
    return float((before.exp() * (before - after)).sum(-1).mean())


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere2"])
def test_noise_brings_the_divergence_that_it_says(tmp_path, monkeypatch, name):
    monkeypatch.setattr("frontend.fisher.HEAD_ROWS", 100)  # the head comes in several parts
    model = saved(tmp_path, name, tie_word_embeddings=False)
    found = measured(tmp_path, NOISE)
    assert found.keys() == NOISE
    for parameter, fisher in found.items():
        torch.manual_seed(2)
        noise = torch.randn(fisher.shape)
        noise *= float(np.sqrt(2e-4 / (fisher * noise.numpy() ** 2).sum()))
        assert divergence(model, parameter, noise) == pytest.approx(1e-4, rel=0.45), parameter


@pytest.mark.parametrize("batch", [20, 64])
def test_what_inputs_are_is_measured_beside(tmp_path, monkeypatch, batch):
    """To the bit, in three batches or in one."""
    monkeypatch.setattr("frontend.calibration.BATCH_TOKENS", batch)
    saved(tmp_path, "llama")
    found = run_back(*opened(tmp_path), TOKENS, NOISE, lambda *given: None, TOKENS[:3, :20])
    wanted = mean_squares(*opened(tmp_path), TOKENS[:3, :20], 2)
    assert found.keys() == wanted.keys()
    for name, each in found.items():
        np.testing.assert_array_equal(each, wanted[name])
    assert run_back(*opened(tmp_path), TOKENS, NOISE, lambda *given: None) == {}


def test_experts_are_measured_and_the_same_each_time(tmp_path):
    saved(tmp_path, "qwen3_moe")
    native, weights = opened(tmp_path)
    wanted = {name for name in weights.tensors if "mlp" in name or "proj" in name}
    first, second = measured(tmp_path, wanted), measured(tmp_path, wanted)
    assert first.keys() == {name for name, _ in native.named_parameters() if name in wanted}
    for name, fisher in first.items():
        assert fisher.shape == weights.shape(name)
        np.testing.assert_array_equal(fisher, second[name])
