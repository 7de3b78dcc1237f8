"""The tokens of whole conversations with the file, against Hugging Face in float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime_sim.session import Session
from tests.checkpoints import LLAMA3_ROPE
from tests.end_to_end.reference import greedy
from tests.end_to_end.tiny import Tiny

PROMPT = np.random.default_rng(3).integers(0, 1024, 29).tolist()
COUNT = 5  # one of prefill, four of decode

VARIANTS = {  # family, changes to the checkpoint, changes to the options
    "llama": ("llama", {}, {}),
    "qwen2": ("qwen2", {}, {}),
    "qwen3": ("qwen3", {}, {}),
    "tied embeddings": ("qwen2", {"tied": True}, {}),
    "shards": ("llama", {"sharded": True}, {}),
    "attention bias": ("llama", {"attention_bias": True}, {}),
    "rope scaling of llama 3": ("llama", {"rope_scaling": LLAMA3_ROPE}, {}),
    "heads wider than the model": ("qwen3", {"head_dim": 128}, {}),
    "one kv head": ("llama", {"kv_heads": 1}, {}),
    "a kv head per head": ("llama", {"kv_heads": 4}, {}),
    "short prefill": ("qwen3", {}, {"max_input_length": 32}),
    "more than one row of lanes": ("llama", {}, {"seq_length": 192}),
}


def tokens_of(model: Tiny) -> list[int]:
    return list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_those_of_hugging_face(tiny, variant):
    family, checkpoint, options = VARIANTS[variant]
    model = tiny(family, "bf16", checkpoint, options)
    assert tokens_of(model) == greedy(model.options.model_path, PROMPT, COUNT)
