"""Parameters of experts that are made of one tensor, or one packed matrix, for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.diagnostics import UserError
from frontend.binding import Weights, bind, expected_of
from frontend.build import native_model
from frontend.checkpoint import Checkpoint
from frontend.sources.find import find_sources
from tests import packers
from tests.packers import quantize_checkpoint

MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_local_experts": 3,
    "vocab_size": 32,
}
EXPERTS = "model.layers.0.mlp.experts"


def bound(folder: Path) -> Weights:
    found = find_sources(Checkpoint(folder), None)
    model = native_model(json.loads((folder / "config.json").read_text()), 8)
    return bind(found.sources, folder, expected_of(model), odd=found.problems)


def make_mixtral(folder: Path, config: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)


def mixtral(folder: Path, **changed: np.ndarray | None) -> tuple[Path, dict[str, np.ndarray]]:
    """A checkpoint with a key for each expert, as published ones are; some tensors changed, or left out."""
    from safetensors.torch import load_file as load_torch

    make_mixtral(folder, MIXTRAL)
    tensors = {key: values.numpy() for key, values in load_torch(folder / "model.safetensors").items()}
    assert "model.layers.0.block_sparse_moe.experts.2.w3.weight" in tensors
    for key, values in changed.items():
        tensors.pop(f"model.layers.0.block_sparse_moe.experts.{key}.weight")
        if values is not None:
            tensors[f"model.layers.0.block_sparse_moe.experts.{key}.weight"] = values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, tensors


def test_a_parameter_of_experts_is_made_of_one_tensor_for_each(tmp_path):
    folder, tensors = mixtral(tmp_path)
    weights = bound(folder)
    one = {name: tensors[f"model.layers.0.block_sparse_moe.experts.1.{name}.weight"] for name in ("w1", "w2", "w3")}
    both = np.concatenate([one["w1"], one["w3"]])
    assert weights.shape(f"{EXPERTS}.gate_up_proj") == (3, 48, 16)
    assert weights.shape(f"{EXPERTS}.gate_up_proj[1].T[0:16:2]") == (8, 48)
    np.testing.assert_array_equal(weights.read(f"{EXPERTS}.gate_up_proj")[1], both)
    np.testing.assert_array_equal(weights.read(f"{EXPERTS}.gate_up_proj[1]"), both)
    np.testing.assert_array_equal(weights.read(f"{EXPERTS}.gate_up_proj[*][24:48:1]")[1], one["w3"])
    np.testing.assert_array_equal(weights.read(f"{EXPERTS}.down_proj[1].T"), one["w2"].T)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("1.w3", None, r"lacks a part of expert 1 of .*experts\.gate_up_proj"),
        ("2.w2", None, r"experts\.0\.w2\.weight.*shape \[3, 16, 24\].*\[2, 16, 24\]"),
        ("1.w1", np.ones((8, 16), np.float32), r"experts\.1\.w1\.weight in .* has shape \[8, 16\], where .*0\.w1\.weight"),
        ("1.w1", np.ones((24, 16), np.float16), r"is stored as float16, where .* float32"),
    ],
)
def test_experts_that_lack_something_or_differ_are_refused_by_key(tmp_path, key, values, message):
    folder, _ = mixtral(tmp_path, **{key: values})
    with pytest.raises(UserError, match=message):
        bound(folder)


def packed_mixtral(folder: Path, chosen: Any = lambda module: True, **options: Any) -> Path:
    """The same with the experts' matrices as GPTQ packs them."""
    config = {**MIXTRAL, "hidden_size": 64, "intermediate_size": 64}
    make_mixtral(folder, config)
    quantize_checkpoint(folder, packers.gptq, packers.GPTQ, lambda module: "experts" in module and chosen(module), **options)
    return folder


def test_codes_of_experts_are_one_behind_the_other(tmp_path):
    weights = bound(packed_mixtral(tmp_path))
    assert weights.schemes.keys() == {f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj"}
    every = weights.read(f"{EXPERTS}.gate_up_proj[*][64:128:1]")
    one = weights.read(f"{EXPERTS}.gate_up_proj[1]")
    assert (every.codes.shape, every.zeros.shape) == ((3 * 64, 64), (3 * 64, 2))
    np.testing.assert_array_equal(every.codes[64:128], one.codes[64:])
    np.testing.assert_array_equal(every.zeros[64:128], one.zeros[64:])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("1.w2", r"experts\.1\.w2\.weight in .* is stored as float32, where .*experts\.0\.w2\.qweight, of the same"),
        ("w3", r"experts\.0\.w3\.weight in .* is stored as float32, where .*experts\.0\.w1\.qweight, of the same"),
    ],
)
def test_experts_of_which_some_are_codes_are_refused_by_key(tmp_path, chosen, message):
    folder = packed_mixtral(tmp_path, lambda module: not module.endswith(chosen))
    with pytest.raises(UserError, match=message):
        bound(folder)


def test_experts_with_orders_of_their_inputs_are_refused_by_key(tmp_path):
    with pytest.raises(UserError, match=r"experts\.0\.w1\.g_idx in .* order of its own \(desc_act\)\n.*without desc_act$"):
        bound(packed_mixtral(tmp_path, shuffled=True))


def test_what_is_odd_of_an_expert_is_told_alone(tmp_path):
    tensors = load_file(packed_mixtral(tmp_path) / "model.safetensors")
    tensors.pop("model.layers.0.block_sparse_moe.experts.2.w3.qzeros")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^[^\n]*: [^\n ]*experts\.2\.w3\.qzeros: expected beside qweight, found none$"):
        bound(tmp_path)


def test_a_number_of_an_expert_that_is_none_is_told_by_its_key(tmp_path):
    values = np.ones((24, 16), np.float32)
    values[3, 5] = np.nan
    folder, _ = mixtral(tmp_path, **{"2.w3": values})
    weights = bound(folder)
    assert weights.read(f"{EXPERTS}.gate_up_proj[1]").shape == (48, 16)
    with pytest.raises(UserError, match=r"experts\.2\.w3\.weight in .* holds nan at index \[3, 5\]"):
        weights.read(f"{EXPERTS}.gate_up_proj[2][24:48:1]")
