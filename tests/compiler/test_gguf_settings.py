"""What transformers leaves out of a GGUF file's settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from compiler.diagnostics import UserError
from compiler.gguf import read_gguf
from compiler.gguf_settings import settings_left_out
from tests.checkpoints import LLAMA3_ROPE
from tests.ggufs import HEAD, add_settings, finish

LLAMA3 = LLAMA3_ROPE | {"factor": 32.0, "original_max_position_embeddings": 8192}


def left_out(tmp_path, tensors=None, architecture="llama", **metadata):
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, architecture)
    add_settings(writer, metadata)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    finish(writer)
    return settings_left_out(read_gguf(path))


def test_nothing_but_the_size_of_heads_is_left_out_of_a_plain_file(tmp_path):
    assert left_out(tmp_path) == {"head_dim": HEAD}


def test_the_factors_of_llama_3_become_its_settings(tmp_path):
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=LLAMA3 | {"rope_theta": 10000.0})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 10000.0 ** -(np.arange(0, HEAD, 2) / HEAD)
    factors = (plain / scaled.numpy()).astype(np.float32)
    assert len(set(factors.tolist())) > 5
    found = left_out(tmp_path, {"rope_freqs.weight": factors})["rope_scaling"]
    assert found.pop("factor") == pytest.approx(32)
    assert found == {key: value for key, value in LLAMA3.items() if key != "factor"}
    factors[3] *= 1.01
    with pytest.raises(UserError, match=r"the factors of rope_freqs\.weight are not those of llama 3"):
        left_out(tmp_path, {"rope_freqs.weight": factors})


def test_scaling_that_metadata_says(tmp_path):
    said = {"rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 128}
    found = left_out(tmp_path, rope__scaling__type="yarn", **said)["rope_scaling"]
    assert found == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert left_out(tmp_path, rope__scaling__type="linear", **said)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert "rope_scaling" not in left_out(tmp_path, rope__scaling__type="none", **said)
    with pytest.raises(UserError, match="rotary positions are scaled by 'dynamic', which is not supported"):
        left_out(tmp_path, rope__scaling__type="dynamic")


def test_factors_by_length_are_those_of_longrope(tmp_path):
    long, short = np.full(HEAD // 2, 2, np.float32), np.ones(HEAD // 2, np.float32)
    tensors = {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    found = left_out(tmp_path, tensors, "phi3", rope__scaling__original_context_length=64)["rope_scaling"]
    assert found["long_factor"] == long.tolist()
    assert (found["rope_type"], found["original_max_position_embeddings"]) == ("longrope", 64)
    with pytest.raises(UserError, match=r"expected rope_factors_short\.weight in f32"):
        left_out(tmp_path, {"rope_factors_long.weight": long}, "phi3")


def test_a_part_of_each_head_and_caps(tmp_path):
    assert left_out(tmp_path, rope__dimension_count=48)["partial_rotary_factor"] == 0.75
    caps = left_out(tmp_path, architecture="gemma2", attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    assert caps == {"head_dim": HEAD, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
