"""The mean squares of what linears are given, beside those that hooks see in the Hugging Face model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from compiler.ir.types import BF16
from driver.calibration.kept import Vector
from frontend.binding import Weights
from frontend.build import native_model
from frontend.calibration import Measure, in_order, mean_squares, run_layers
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


def test_what_follows_is_given_what_a_layer_makes_with_changed_parameters(tmp_path):
    """Here the first layer's are put to zero, so that it hands on what it is given."""
    saved(tmp_path, "llama")
    native, weights = opened(tmp_path)
    seen: list[Any] = []

    def settle(sums: Any) -> bool:
        seen.append(sums)
        assert all(value.device.type == "meta" for value in native.parameters())
        for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            source = weights.tensors[f"model.layers.0.{name}"]
            weights.made[f"model.layers.0.{name}"] = Vector(source, np.zeros(source.shape, np.float32))
        return len(seen) == 1

    run_layers(native, weights, TOKENS, 2, lambda name: Measure(8), settle)
    first, second = (each[f"model.layers.{i}.self_attn.q_proj.weight"] for i, each in enumerate(seen[:2]))
    scales = [weights.read_floats(f"model.layers.{i}.input_layernorm.weight").astype(np.float32) for i in (0, 1)]
    np.testing.assert_allclose(second.mean / scales[1] ** 2, first.mean / scales[0] ** 2, rtol=1e-4)
    assert "lm_head.weight" in seen[-1]


def test_linears_of_one_input_share_its_moments(tmp_path):
    saved(tmp_path, "llama")
    seen: list[Any] = []
    run_layers(*opened(tmp_path), TOKENS, 3, lambda name: Measure(8), lambda sums: bool(seen.append(sums)))
    by = {name.rpartition(".layers.0.")[2]: each for name, each in seen[0].items()}
    assert by["self_attn.q_proj.weight"] is by["self_attn.v_proj.weight"]
    assert by["self_attn.q_proj.weight"] is not by["mlp.up_proj.weight"]
    moments = by["mlp.down_proj.weight"]
    assert moments.rows == TOKENS.size
    np.testing.assert_allclose(moments.squares[0], moments.squares[0].T, rtol=1e-4, atol=1e-6)


def test_no_more_calls_are_under_way_than_asked_for():
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        return number

    with ThreadPoolExecutor(4) as pool:
        for number in in_order(pool, 2, [partial(call, number) for number in range(9)]):
            assert len(begun) <= number + 3
    assert sorted(begun) == [*range(9)]
