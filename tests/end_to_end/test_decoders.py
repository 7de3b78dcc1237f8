"""Small decoders that are no llama: every net of the file beside the model of transformers in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import Verifier
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.verify import results_of
from tests.architectures.configs import COMMON
from tests.architectures.measure import write
from tests.frontend.oracle import reference_model

SIZES = COMMON | {"num_hidden_layers": 2, "intermediate_size": 256, "head_dim": 32}
LENGTH = 64
DECODERS: dict[str, dict[str, Any]] = {
    "gpt_neox": {"rotary_pct": 0.25},  # rope of a part of each head, layer norms with biases, gelu, attention and mlp side by side
    "olmo": {"clip_qkv": 0.4},  # layer norms without weights, clamped queries, keys and values
    "nemotron": {"partial_rotary_factor": 0.5},  # layer norms with weights plus one, squared relu
    "starcoder2": {"sliding_window": 16},  # windows; gelu by its tanh form
    "phi3": {"sliding_window": 50},  # one linear for queries, keys and values, one for gate and up
    "persimmon": {"num_key_value_heads": 4},  # queries, keys and values of each head together, layer norms of heads
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 64},  # learned positions, states of another width around the layers
    "gpt_bigcode": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128},  # one head of keys and values
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128},  # weights of [inputs, outputs]
    "gemma": {},  # rows of the embedding times a number, norm weights plus one, a gate of gelu's tanh form
    "gemma2": {"sliding_window": 16, "attn_logit_softcapping": 4.0},  # windows on some layers, caps of scores and logits
    "cohere2": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},  # rope of neighbours
    "stablelm": {"qk_layernorm": True},  # a layer norm for each head
    "ministral3": {},  # queries times a number for each position
    "minicpm3": {  # keys of two parts, one of them for all heads, and narrower values
        "q_lora_rank": 64,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "num_key_value_heads": 4,
    },
    "granite": {  # numbers that multiply the embedding, what is added to the residual, and the logits
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
}


@pytest.mark.parametrize("model_type", DECODERS)
def test_every_net_computes_what_the_model_does(model_type, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "out"
    write(reference_model({**SIZES, **DECODERS[model_type], "model_type": model_type}), folder)
    options = ConvertOptions(folder, LENGTH, "bf16", out_dir=out)
    file = convert(dataclasses.replace(options, passes=default_pipeline(options)))
    session = open_session(file, out / "config", exact=False)
    tokens = np.random.default_rng(0).integers(3, SIZES["vocab_size"], LENGTH).tolist()
    results = list(results_of(Verifier(session, Reference(folder), tokens)))
    assert [problem for result in results for problem in result.problems] == []
    assert min(found.cosine for result in results for found in result.agreements.values()) > 0.9999
