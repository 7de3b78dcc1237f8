"""Each architecture against transformers in eager float32: a padded prefill, then a decode step.

No line of the frontend names an architecture; that those below pass is what shows it. Each passes as
imported and again after the fusions, and mutated imports fail.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.ir.module import walk
from dialects import llm
from tests.frontend.oracle import RECOGNIZED, Subject, ops_of

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ARCHITECTURES = {
    "llama": {"rope_scaling": LLAMA3_ROPE, "attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 6},  # shorter than the prompt
    "granite": {  # multipliers of embedding, residual, attention and logits
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "olmo2": {},  # norms of whole q and k, and behind each part instead of before it
    "gemma": {"head_dim": 32},  # norm weights plus one, gelu, scaled embedding
    "gemma2": {"head_dim": 32, "sliding_window": 12, "attn_logit_softcapping": 3.0},  # a window that decode fills
    "cohere2": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},  # no rope on some layers
    "cohere": {},  # layer norms, interleaved rope, parallel attention
    "olmo": {"clip_qkv": 0.4},  # layer norms without weights, clamped queries, keys and values
    "nemotron": {},  # layer norms with weights plus one, squared relu
    "stablelm": {"qk_layernorm": True, "use_parallel_residual": True},  # a layer norm for each head
    "gpt_neox": {},  # queries, keys and values of a head side by side
    "starcoder2": {"sliding_window": None},  # biases everywhere
    "phi": {},  # rope of a part of each head, no gate
    "phi3": {},  # one linear for q, k and v, one for gate and up
    "glm4": {"head_dim": 16},  # interleaved rope of a part of each head
    "minicpm3": {  # keys of two parts, one of them for all heads; narrower values; latents in the cache
        "q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "smollm3": {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]},  # a layer without rope between two with it
}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 3}
ARCHITECTURES |= {
    "mixtral": EXPERTS,
    "qwen2_moe": {**EXPERTS, "moe_intermediate_size": 32, "norm_topk_prob": True},  # and one that all tokens take
    "gpt_oss": {**EXPERTS, "head_dim": 16},  # biases, rows of gate and up in turns, transposed; a limited gate
    "glm4_moe": {  # a dense layer first; groups of experts, chosen by corrected scores
        "head_dim": 16,
        "first_k_dense_replace": 1,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
    },
}
TOLERANCE = 1e-5  # of the largest logit
PAIRS = {"phi3": 8, "minicpm3": 4}  # of numbers that turn, by models whose checkpoints have longrope


@pytest.mark.parametrize("model_type", PAIRS)
def test_longrope_beyond_the_original_length_has_the_factors_of_long_conversations(model_type):
    """As the reference has, with more tokens than that in this one; the prompts of the nets may be longer too."""
    count = PAIRS[model_type]
    factors = {"short_factor": [1.0] * count, "long_factor": [1.5 + i for i in range(count)]}
    rope = {"rope_type": "longrope", **factors, "original_max_position_embeddings": 8}
    settings = ARCHITECTURES[model_type] | {"rope_scaling": rope, "original_max_position_embeddings": 8}
    assert Subject.make(model_type, **{"num_hidden_layers": 2} | settings).error() < TOLERANCE


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_import_computes_what_the_model_computes(model_type):
    subject = Subject.make(model_type, **{"num_hidden_layers": 2} | ARCHITECTURES[model_type])
    assert subject.error() < TOLERANCE
    assert subject.fuse().error() < TOLERANCE


@pytest.fixture(scope="module")
def qwen3():
    right = Subject.make("qwen3", head_dim=32, attention_bias=True).fuse(RECOGNIZED)
    assert right.error() < TOLERANCE
    return right


def change_eps(subject):
    for op in ops_of(subject, llm.RmsNormOp):
        op.eps = 1e-2


def change_rope_mode(subject):
    for op in ops_of(subject, llm.RopeOp):
        op.mode = "interleaved"


def change_scale(subject):
    for op in ops_of(subject, llm.AttentionOp):
        op.scale *= 1.1


def drop_a_norm_weight(subject):
    for op in ops_of(subject, llm.RmsNormOp):
        if op.weight.owner.name == "self_attn.k_norm.weight":
            op.weight = None


def drop_a_bias(subject):
    for op in ops_of(subject, llm.LinearOp):
        if op.bias is not None and op.bias.owner.name == "self_attn.v_proj.bias":
            op.bias = None


def swap_tables(subject):
    for op in ops_of(subject, llm.TableOp):
        op.name = {"cos": "sin", "sin": "cos"}[op.name]


def share_a_layer(subject):
    instances = subject.imported.find("block_1")[0].instances
    instances[1] = replace(instances[1], prefix=instances[0].prefix)


MUTATIONS = [
    change_eps,
    change_rope_mode,
    change_scale,
    drop_a_norm_weight,
    drop_a_bias,
    swap_tables,
    share_a_layer,
]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_wrong_import_is_noticed(qwen3, mutate):
    mutant = qwen3.copy()
    mutate(mutant)
    assert mutant.error() > 100 * TOLERANCE


def test_mistake_in_decode_alone_is_noticed(qwen3):
    mutant = qwen3.copy()
    for name in ("block_cache_0", "block_cache_2"):
        for op in walk(mutant.imported.find(name)[1]):
            if isinstance(op, llm.RopeOp):
                op.mode = "interleaved"
    assert mutant.error() > 100 * TOLERANCE


def test_a_window_that_is_lost_changes_the_logits():
    subject = Subject.make("mistral", sliding_window=6, num_hidden_layers=2)
    for op in ops_of(subject, llm.HideBeforeOp):
        op.y.replace_by(op.mask)
    for op in ops_of(subject, llm.AttentionOp):
        op.visible = llm.Visible("masked")
    assert subject.error() > 100 * TOLERANCE
