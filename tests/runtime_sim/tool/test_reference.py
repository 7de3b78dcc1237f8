"""The reference: folders that are refused, and what is traced of models of any make."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from compiler.diagnostics import UserError
from runtime_sim.tool.reference import Reference


def test_a_reference_with_pickled_weights_only_is_refused(tiny_checkpoint, tmp_path):
    shutil.copy(tiny_checkpoint("qwen3") / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(EvilPickle()))
    with pytest.raises(UserError, match="no safetensors"):
        Reference(tmp_path)


class EvilPickle:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_a_reference_that_lacks_a_weight_is_refused(tiny_checkpoint, tmp_path):
    tensors = load_file(tiny_checkpoint("qwen3") / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(tiny_checkpoint("qwen3") / "config.json", tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 of the model's weights, such as .*up_proj"):
        Reference(tmp_path)


@pytest.mark.parametrize("model_type", ["phi", "gpt_neox", "persimmon", "gpt2", "gemma3_text", "cohere"])
def test_references_of_other_make_are_traced(tmp_path, model_type):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    if model_type == "gpt2":
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4}
    config = AutoConfig.for_model(model_type, vocab_size=128, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    reference = Reference(tmp_path)
    tokens = list(range(1, 21))
    trace = reference.trace(tokens, [3, 19])
    with torch.no_grad():
        logits = reference.model(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(trace.logits, logits[[3, 19]], atol=1e-5)
    assert len(trace.layers) == config.num_hidden_layers
    assert all(len(layer.keys) == len(layer.states_out) == 20 for layer in trace.layers)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        Reference(tmp_path)


SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128, "hidden_size": 64}


@pytest.mark.parametrize(
    ("model_type", "settings", "looks_up", "name"),
    [
        ("llama", {}, True, None),
        ("gemma", {"head_dim": 16, "num_key_value_heads": 4}, False, None),  # times a number
        ("opt", {"word_embed_proj_dim": 64}, True, "model.decoder.embed_tokens"),  # and rows by position
        ("opt", {"word_embed_proj_dim": 32}, False, "model.decoder.project_in"),
        ("biogpt", {}, False, "biogpt.embed_tokens"),
    ],
)
def test_what_is_embedded_does_not_depend_on_positions(tmp_path, model_type, settings, looks_up, name):
    config = AutoConfig.for_model(model_type, **SIZES, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    reference = Reference(tmp_path)
    tokens = [5, 9, 5]
    embedded = reference.trace(tokens).embedded
    np.testing.assert_array_equal(embedded[0], embedded[2])
    np.testing.assert_array_equal(embedded, reference.embedded(tokens))
    assert embedded.shape == (3, 64)
    assert reference.looks_up == looks_up
    assert reference._embedding == name
