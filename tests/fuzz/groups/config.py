"""config.json: values, types, keys and text."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import computes_as_the_model
from tests.fuzz.mutate import FLOATS, NUMBERS, nasty, spoil_json
from tests.fuzz.samples import FAMILIES, FLAGS, MODES, Samples

SIZES = (0, 1, 2, 3, 32, 63, 64, 65, 96, 100, 128, 256, *NUMBERS)
RATIOS = (0, 1, 1e-6, 4.0, 1e4, 5e5, *FLOATS)
TYPES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "gpt2", "mistral", "mixtral", "cohere",
         "falcon", "olmo2", "stablelm", "nemotron", "t5", "bert", "qwen2_vl", "qwen3_moe", "mamba")  # fmt: skip
ROPES: tuple[Any, ...] = tuple(
    {"rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 8, "rope_theta": 10000.0, **more}
    for kind, more in (
        ("default", {}),
        ("linear", {"factor": 0}),
        ("dynamic", {"factor": float("nan")}),
        ("yarn", {"beta_fast": 0}),
        ("yarn", {"attention_factor": -1}),
        ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("llama3", {"low_freq_factor": 4.0, "high_freq_factor": 4.0}),
        ("longrope", {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}),
        ("longrope", {"short_factor": [1.0] * 3, "long_factor": []}),
        ("other", {}),
    )
)

# Keys that readers of config.json look at; an empty tuple leaves it to `nasty`.
KNOWN: dict[str, tuple[Any, ...]] = {
    "model_type": TYPES,
    "architectures": (["GPT2LMHeadModel"], [], ["LlamaForCausalLM", "x"], "LlamaForCausalLM"),
    "hidden_size": SIZES,
    "num_hidden_layers": SIZES,
    "num_attention_heads": SIZES,
    "num_key_value_heads": SIZES,
    "head_dim": SIZES,
    "intermediate_size": SIZES,
    "vocab_size": SIZES,
    "max_position_embeddings": SIZES,
    "rms_norm_eps": RATIOS,
    "rope_theta": RATIOS,
    "partial_rotary_factor": RATIOS,
    "attention_dropout": RATIOS,
    "initializer_range": RATIOS,
    "rope_scaling": ROPES,
    "rope_parameters": ROPES,
    "hidden_act": ("silu", "gelu", "relu", "gelu_pytorch_tanh", "swish", "none", ""),
    "tie_word_embeddings": (True, False, "yes", 1),
    "attention_bias": (True, False, "no"),
    "mlp_bias": (True, False),
    "sliding_window": (0, 1, 4, 16, 4096, -1),
    "use_sliding_window": (True,),
    "layer_types": (["full_attention"], ["sliding_attention"], ["other"], [], ["full_attention"] * 5),
    "torch_dtype": ("bfloat16", "float16", "float32", "int8", "torch.bfloat16", "x"),
    "dtype": ("bfloat16", "float64", 3),
    "num_labels": SIZES,
    "id2label": ({"0": "x"}, {"x": "y"}),
    "problem_type": ("regression", "x"),
    "quantization_config": ({"quant_method": "gptq", "bits": 4}, {"quant_method": 3}, {"bits": 4}, {}),
    "compression_config": ({"quant_method": "compressed-tensors"},),
    "auto_map": ({"AutoModelForCausalLM": "code.Model"},),
    "attn_implementation": ("eager", "flash_attention_2", "x"),
    "_attn_implementation": ("eager", "x"),
    "use_cache": (False,),
    "return_dict": (False,),
    "output_attentions": (True,),
    "pretraining_tp": SIZES,
    "chunk_size_feed_forward": SIZES,
    "is_decoder": (True,),
    "pad_token_id": SIZES,
    "eos_token_id": ([], [1, 2], "2", *SIZES),
    "text_config": ({}, {"model_type": "llama"}),
    "vision_config": ({},),
    "model_name": (),
    "transformers_version": (),
    "name_or_path": (),
}


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    model = samples.copy_checkpoint(folder, rng.choice(FAMILIES))
    path = model / "config.json"
    if rng.random() < 0.05:
        text = json.dumps(nasty(rng))
        what = f"the whole is {text[:60]}"
    else:
        text, what = spoil_json(rng, json.loads(path.read_text()), KNOWN)
    write_text(path, text)
    flags = [*FLAGS, "-q", rng.choice(MODES)]
    return Case(f"config.json: {what}", "llm_convert", flags, results=("out",), check=computes_as_the_model)
