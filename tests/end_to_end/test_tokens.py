"""The tokens of whole conversations with the file, against Hugging Face in float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime_sim.launch.session import Session
from tests.checkpoints import LLAMA3_ROPE
from tests.end_to_end.reference import greedy
from tests.end_to_end.tiny import ROUNDING, Tiny, check_close

PROMPT = np.random.default_rng(3).integers(0, 1024, 29).tolist()
COUNT = 5  # one of prefill, four of decode

VARIANTS = {  # family, changes to the checkpoint, changes to the options
    "llama": ("llama", {}, {}),
    "bias in the mlp, several tiles": ("llama", {"layers": 1, "mlp_bias": True, "intermediate": 2304}, {"seq_length": 96}),
    "head size 32 with biases": ("qwen2", {"layers": 1, "head_dim": 32}, {}),
    "head size 96 with biases": ("llama", {"layers": 1, "head_dim": 96, "attention_bias": True}, {}),
    "tied embeddings": ("qwen2", {"tied": True}, {}),
    "heads wider than the model": ("qwen3", {"layers": 1, "head_dim": 128}, {}),
    "shards, attention bias, rope scaling of llama 3": (
        "llama",
        {"shards": 2, "attention_bias": True, "rope_scaling": LLAMA3_ROPE},
        {},
    ),
    "windows shorter than the prompt": ("mistral", {"sliding_window": 12}, {}),
    "windows longer than a prompt may be": ("mistral", {"sliding_window": 30}, {"max_input_length": 29}),
    "a kv head per head, short prefill": ("llama", {"layers": 1, "kv_heads": 4, "seed": 12}, {"max_input_length": 32}),
    "one kv head, several tiles": (
        "qwen2",
        {"layers": 1, "hidden": 320, "heads": 5, "kv_heads": 1, "intermediate": 2304},
        {},
    ),
    "widths that fill no rows of lanes": (
        "llama",
        {"layers": 1, "hidden": 250, "heads": 5, "kv_heads": 1, "head_dim": 50, "intermediate": 358, "vocab": 1027}
        | {"attention_bias": True, "mlp_bias": True, "tied": True},
        {},
    ),
    "head size 80, rows of tokens that are not full": (
        "qwen2",
        {"layers": 1, "hidden": 1000, "heads": 4, "head_dim": 80, "intermediate": 1000},
        {"seq_length": 130, "max_input_length": 70},
    ),
    "more heads than lanes": ("qwen3", {"layers": 1, "hidden": 142, "heads": 71, "kv_heads": 1}, {}),
    "several rows of lanes": ("qwen3", {"layers": 1}, {"seq_length": 192}),
    "rows of lanes that are not full": ("qwen3", {"layers": 1}, {"seq_length": 130, "max_input_length": 70}),
}


def tokens_of(model: Tiny) -> list[int]:
    return list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_those_of_hugging_face(tiny, variant):
    family, checkpoint, options = VARIANTS[variant]
    model = tiny(family, "bf16", checkpoint, options)
    assert tokens_of(model) == greedy(model.options.model_path, PROMPT, COUNT)
    for name in model.last_layer:  # what a token may not show
        net = model.nets[name]
        inputs = model.inputs(net)
        check_close(net, model.run(net, "file", inputs), model.run(net, "llm", inputs), ROUNDING)


def test_windows_change_the_tokens(tiny):
    """Or those that lose them would pass."""
    for variant in ("windows shorter than the prompt", "windows longer than a prompt may be"):
        family, checkpoint, options = VARIANTS[variant]
        without = tiny(family, "bf16", checkpoint | {"sliding_window": None}, options)
        assert greedy(without.options.model_path, PROMPT, COUNT) != tokens_of(tiny(family, "bf16", checkpoint, options))
