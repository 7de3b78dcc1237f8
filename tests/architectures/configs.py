"""Small models of each architecture, with the options that make it what it is.

Widths are small, and windows are shorter than the conversation that the models are run on.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.vision import CONFIGS as SEEING

COMMON: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = 8
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
MLA = {
    "q_lora_rank": 64,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
}

# By the name in the table: the model type and what differs from COMMON.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_scaling": LLAMA3_ROPE}),
    "llama_bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_yarn": ("llama", {"rope_scaling": YARN}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 64, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mistral_nosw": ("mistral", {"sliding_window": None}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "phi": ("phi", {}),
    "gemma": ("gemma", {"head_dim": 64}),
    "gemma2": ("gemma2", {"head_dim": 64, "sliding_window": WINDOW, "attn_logit_softcapping": 4.0}),
    "gemma3_text": ("gemma3_text", {"head_dim": 64, "sliding_window": WINDOW, "layer_types": MIXED}),
    "olmo": ("olmo", {"clip_qkv": 1.0}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
            "logits_scaling": 2.0,
        },
    ),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1]}),
    "stablelm": ("stablelm", {"qk_layernorm": True, "use_qkv_bias": True}),
    "cohere": ("cohere", {"use_qk_norm": True}),
    "cohere2": ("cohere2", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "starcoder2": ("starcoder2", {"sliding_window": WINDOW}),
    "glm4": ("glm4", {"head_dim": 32}),
    "exaone4": ("exaone4", {"sliding_window": WINDOW, "layer_types": MIXED}),
    "nemotron": ("nemotron", {"head_dim": 32}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 192, "word_embed_proj_dim": 128}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 32}),
    "ernie4_5": ("ernie4_5", {"head_dim": 32}),
    "minicpm3": ("minicpm3", MLA),
    "internlm3": ("internlm3", {"head_dim": 32}),
    "ministral3": ("ministral3", {"head_dim": 32}),
    "qwen2_moe": (
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 128, "norm_topk_prob": True},
    ),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gpt_oss": (
        "gpt_oss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 32,
            "sliding_window": WINDOW,
            "layer_types": MIXED,
            "rope_scaling": None,
        },
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **MLA,
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "first_k_dense_replace": 1,
        },
    ),
}


def config_of(name: str) -> dict[str, Any]:
    """config.json of a row; a name that is in no row is a model type with nothing but the common sizes."""
    if name in SEEING:
        return {**copy.deepcopy(SEEING[name]), "model_type": name}
    model_type, settings = CONFIGS.get(name, (name, {}))
    return {**COMMON, **settings, "model_type": model_type}
