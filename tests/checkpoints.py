"""Tiny Hugging Face checkpoints with random weights, of each family and with its options."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

LONGROPE = {  # for heads of 64: the long factors slow each pair of numbers down by another amount
    "rope_type": "longrope",
    "original_max_position_embeddings": 40,
    "short_factor": [1.0] * 32,
    "long_factor": [1 + i / 4 for i in range(32)],
}


def make_checkpoint(
    folder: Path,
    family: str,
    *,
    layers: int = 2,
    hidden: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    intermediate: int = 512,
    vocab: int = 1024,
    dtype: str = "bfloat16",
    tied: bool = False,
    shards: int = 1,
    tokenizer: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Write a llama, qwen2 or qwen3 checkpoint into `folder`, every parameter random, and return the folder.

    `overrides` go into config.json (rope_scaling=LLAMA3_ROPE, attention_bias=True, ...), and the parameters
    follow them. Norm weights lie around 1 and biases around 0, not on it, so that a lost one shows. No more than
    one of the shards is in memory at a time.
    """
    config = {
        "model_type": family,
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **overrides,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    shapes = parameter_shapes(config)
    write_tensors(folder, random_tensors(shapes, np.dtype(DTYPES[dtype]), seed), len(shapes), shards)
    if tokenizer:
        write_tokenizer(folder, vocab)
    return folder


def parameter_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that the published checkpoints of these families hold."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for index in range(config["num_hidden_layers"]):
        layer = layer_shapes(config)
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def layer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    linears = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": linears[name][:1] for name in biased_linears(config)}
    shapes |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if config["model_type"] == "qwen3":
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    return shapes


def biased_linears(config: dict[str, Any]) -> list[str]:
    inputs = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    mlp = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] if config.get("mlp_bias") else []
    if config["model_type"] == "qwen2":
        return inputs + mlp
    return [*inputs, "self_attn.o_proj", *mlp] if config.get("attention_bias") else mlp


def random_tensors(
    shapes: dict[str, tuple[int, ...]], dtype: Any, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for name, shape in shapes.items():
        yield name, random_parameter(name, shape, rng).astype(dtype)


def random_parameter(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        return 1 + 0.2 * values
    if name.endswith(".bias"):
        return 0.3 * values
    if name.endswith("embed_tokens.weight"):
        return values
    return values * np.float32(shape[-1] ** -0.5)  # keeps attention away from uniform


def write_tensors(folder: Path, tensors: Iterator[tuple[str, np.ndarray]], count: int, shards: int) -> None:
    """model.safetensors, or that many shards with their index."""
    from safetensors.numpy import save_file

    weight_map, total = {}, 0
    for number in range(1, shards + 1):
        part = dict(itertools.islice(tensors, -(-count // shards)))
        file = f"model-{number:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
        total += sum(array.nbytes for array in part.values())
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder: Path, vocab: int) -> None:
    """A tokenizer with one token per byte, so any text has ids below 256 + 3, and a short chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<unk>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*special, *alphabet, *(f"<extra_{i}>" for i in range(vocab - len(special) - len(alphabet)))]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>assistant:"
    names = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **names},
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
