"""Tiny GGUF files with random weights, written with the package of the format and its formulas for blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.quants import quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

BLOCK = 32
HIDDEN, HEADS, KV_HEADS, INNER, VOCAB, LAYERS = 256, 4, 2, 512, 384, 2
HEAD = HIDDEN // HEADS
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# Of a layer, by what llama.cpp calls them; rows and columns, or a vector's width.
DENSE = {
    "attn_norm": (HIDDEN,),
    "attn_q": (HEADS * HEAD, HIDDEN),
    "attn_k": (KV_HEADS * HEAD, HIDDEN),
    "attn_v": (KV_HEADS * HEAD, HIDDEN),
    "attn_output": (HIDDEN, HEADS * HEAD),
    "ffn_norm": (HIDDEN,),
    "ffn_gate": (INNER, HIDDEN),
    "ffn_up": (INNER, HIDDEN),
    "ffn_down": (HIDDEN, INNER),
}
FUSED = {
    "attn_qkv": ((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN),
    "ffn_up": (2 * INNER, HIDDEN),
}
PARTS = ("attn_q", "attn_k", "attn_v", "ffn_gate")  # of what is fused
LAYER_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "llama": DENSE,
    "qwen2": DENSE,
    "qwen3": DENSE | {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)},
    "gemma2": DENSE | {"post_attention_norm": (HIDDEN,), "post_ffw_norm": (HIDDEN,)},
    "gemma3": DENSE
    | {"post_attention_norm": (HIDDEN,), "post_ffw_norm": (HIDDEN,)}
    | {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)},
    "phi3": {name: shape for name, shape in (DENSE | FUSED).items() if name not in PARTS},
}
BIASED = {"qwen2": ("attn_q", "attn_k", "attn_v")}


def make_gguf(
    path: Path,
    architecture: str = "llama",
    kind: Kind = Kind.Q4_0,
    *,
    tied: bool = False,
    others: dict[str, Kind] | None = None,
    seed: int = 0,
    **metadata: Any,
) -> Path:
    """A model whose matrices are of one kind, but those that `others` names; embedding and head are Q8_0.

    `metadata` are numbers and texts under the architecture's name.
    """
    writer, rng = GGUFWriter(path, architecture), np.random.default_rng(seed)
    add_settings(writer, metadata)
    add_tokenizer(writer)
    kinds = {"token_embd": Kind.Q8_0, "output": Kind.Q8_0} | (others or {})
    for name, shape in shapes(architecture, tied).items():
        values = (rng.standard_normal(shape) * 0.08 + name.endswith("norm.weight")).astype(np.float32)
        short = name.removesuffix(".weight").split(".")[-1]
        stored = kinds.get(name.removesuffix(".weight"), kinds.get(short, kind)) if len(shape) > 1 else Kind.F32
        add_tensor(writer, name, values, stored)
    finish(writer)
    return path


def add_settings(writer: GGUFWriter, metadata: dict[str, Any]) -> None:
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{writer.arch}.{key.replace('__', '.')}", value)


def add_tokenizer(writer: GGUFWriter) -> None:
    """One token for each byte, one for two of them, then some that stand for nothing."""
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, "<|start|>", "<|end|>", "he", *(f"<|{n}|>" for n in range(VOCAB - len(letters) - 3))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1 if len(token) <= 2 else 3 for token in tokens])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)


def shapes(architecture: str, tied: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not tied:
        found["output.weight"] = (VOCAB, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in LAYER_SHAPES[architecture].items():
            found[f"blk.{layer}.{name}.weight"] = shape
            if name in BIASED.get(architecture, ()):
                found[f"blk.{layer}.{name}.bias"] = shape[:1]
    return found


def add_tensor(writer: GGUFWriter, name: str, values: np.ndarray, kind: Kind) -> None:
    if kind in PACKED:
        writer.add_tensor(name, random_blocks(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- blocks by their formulas ----


def random_blocks(like: np.ndarray, kind: Kind) -> np.ndarray:
    """Blocks of codes all over their range, whose weights are about as large as these values."""
    rows, columns = like.shape
    rng = np.random.default_rng(rows * columns)
    shape = (rows, columns // BLOCK, BLOCK)
    high = 15 if kind != Kind.Q8_0 else 127
    codes = rng.integers(-127 if kind == Kind.Q8_0 else 0, high + 1, shape)
    scales = (rng.uniform(0.5, 1.5, shape[:2]) * float(np.std(like)) * 3 / high).astype(np.float16)
    minimums = (-7.3 * scales.astype(np.float32)).astype(np.float16)
    return PACKED[kind](codes, scales, minimums).reshape(rows, -1)


def pack_q4_0(codes: np.ndarray, scales: np.ndarray, minimums: np.ndarray) -> np.ndarray:
    """d, then byte j of 16: code j in the low half, code j + 16 in the high one; (code - 8) * d."""
    return np.concatenate([as_bytes(scales), nibbles(codes)], axis=2)


def pack_q4_1(codes: np.ndarray, scales: np.ndarray, minimums: np.ndarray) -> np.ndarray:
    """d, m, then as above; code * d + m."""
    return np.concatenate([as_bytes(scales), as_bytes(minimums), nibbles(codes)], axis=2)


def pack_q8_0(codes: np.ndarray, scales: np.ndarray, minimums: np.ndarray) -> np.ndarray:
    """d, then 32 signed bytes; code * d."""
    return np.concatenate([as_bytes(scales), codes.astype(np.int8).view(np.uint8)], axis=2)


def nibbles(codes: np.ndarray) -> np.ndarray:
    return (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8)


def as_bytes(halves: np.ndarray) -> np.ndarray:
    return halves[..., None].view(np.uint8)


PACKED = {Kind.Q4_0: pack_q4_0, Kind.Q4_1: pack_q4_1, Kind.Q8_0: pack_q8_0}


def dequantized(path: Path, name: str) -> np.ndarray:
    """A tensor's values by the package's reader."""
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)
