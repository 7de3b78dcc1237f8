"""The mean squares of what linears are given, beside those that hooks see in the Hugging Face model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from compiler.diagnostics import UserError
from compiler.ir.types import BF16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from frontend.binding import Weights
from frontend.build import native_model
from frontend.calibration import Outer, mean_squares, values_of
from frontend.load import open_model
from tests.architectures.configs import COMMON, CONFIGS

TOKENS = np.random.default_rng(0).integers(0, 256, (3, 24))


def saved(folder: Path, name: str, **others: Any) -> Any:
    """A model of which every parameter is random, in a folder."""
    torch.manual_seed(0)
    model_type, settings = CONFIGS[name]
    config = AutoConfig.for_model(model_type, **{**COMMON, **settings, **others})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        parameter.data = parameter.data + torch.randn(parameter.shape) * 0.05
    model.save_pretrained(folder)
    return model.eval()


def opened(folder: Path) -> tuple[Any, Weights]:
    found = open_model(folder)
    native = native_model(dict(found.config.values), 64, "eager", "eager")
    return native, found.weights(native, BF16)


def hooked(model: Any) -> dict[str, np.ndarray]:
    """The mean squares of the inputs of all linears."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda module, given: found.setdefault(name, []).append(given[0].reshape(-1, given[0].shape[-1])) and None

    linears = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    handles = [each.register_forward_pre_hook(keep(f"{name}.weight")) for name, each in linears.items()]
    with torch.no_grad():
        model(torch.from_numpy(TOKENS))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(rows).double().square().mean(0).numpy() for name, rows in found.items()}


@pytest.mark.parametrize("name", ["llama", "gemma2", "opt", "phi3", "gpt_neox", "gpt_oss", "qwen3_moe", "cohere2"])
def test_inputs_are_those_of_the_hugging_face_model(tmp_path, name):
    wanted = hooked(saved(tmp_path, name))
    native, weights = opened(tmp_path)
    found = mean_squares(native, weights, TOKENS, 2)
    assert wanted.keys() <= found.keys()
    for parameter, squares in wanted.items():
        np.testing.assert_allclose(found[parameter], squares, rtol=2e-3, err_msg=parameter)
    for parameter, squares in found.items():
        assert squares.shape[0] in weights.shape(parameter)
    assert all(value.device.type == "meta" for value in native.parameters())


def test_all_experts_of_a_layer_have_one_mean(tmp_path):
    """Here each token goes through all of them."""
    saved(tmp_path, "qwen3_moe", num_experts=4, num_experts_per_tok=4)
    found = mean_squares(*opened(tmp_path), TOKENS, 1)
    router, experts = (found[f"model.layers.0.mlp.{each}"] for each in ("gate.weight", "experts.gate_up_proj"))
    np.testing.assert_allclose(experts, router, rtol=1e-5)


def test_the_number_of_sequences_at_once_changes_no_bit(tmp_path):
    saved(tmp_path, "llama")
    one, three = (mean_squares(*opened(tmp_path), TOKENS, jobs) for jobs in (1, 3))
    assert one.keys() == three.keys()
    assert all(np.array_equal(one[name], three[name]) for name in one)


def test_the_number_of_threads_is_what_it_was(tmp_path):
    saved(tmp_path, "llama")
    before = torch.get_num_threads()
    mean_squares(*opened(tmp_path), TOKENS, 1)
    assert torch.get_num_threads() == before


def test_layers_that_are_given_something_else_are_refused(tmp_path, monkeypatch):
    saved(tmp_path, "llama")
    native, weights = opened(tmp_path)
    monkeypatch.setattr(Outer, "_run", lambda self, ids, stub: [stub(None, torch.zeros(1)) for _ in range(2)])
    with pytest.raises(UserError, match="layers of LlamaForCausalLM do not hand states"):
        mean_squares(native, weights, TOKENS, 1)


def test_codes_with_an_order_of_inputs_stand_for_a_weight_in_the_model_s():
    scheme = Scheme(4, 2, True, BF16)
    codes = Quantized(
        np.arange(4, dtype=np.uint8)[None], np.ones((1, 2), BF16.numpy), np.zeros((1, 2), np.uint8), scheme
    )

    class Stored(Weights):
        def read(self, name: str, rows: slice = slice(None)) -> Any:
            return codes if name == "w" else np.array([2, 0, 3, 1])

    found = values_of(Stored({}, orders={"w": "w.order"}), "w")
    np.testing.assert_array_equal(found, [[1, 3, 0, 2]])
