"""The float32 weights that a quantized checkpoint stands for, for the reference model.

Written from the formulas of the packings and apart from the compiler's own reader, so that each shows what
the other gets wrong: here a word's fields are shifted out one by one, in 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler.files import checkpoint_root, read_json_object
from runtime_sim.arrays import Array

AWQ_FIELDS = [0, 4, 1, 5, 2, 6, 3, 7]  # where eight neighbouring outputs lie in a word
ZEROS_AS_THEY_ARE = ("gptq_v2", "auto_round", "auto_round:gptqmodel")  # formats that subtract nothing
SETTINGS = ("quantize_config.json", "quantization_config.json")  # beside a config.json that says nothing

Tensors = Mapping[str, Array]


def is_quantized(keys: Iterable[str]) -> bool:
    return any(key.rpartition(".")[2] in DECODERS for key in keys)


def dequantized(tensors: Tensors, folder: Path) -> dict[str, Array]:
    """All tensors of a checkpoint, with one float32 "MODULE.weight" in the place of what a module packs."""
    settings = quantizer_settings(folder)
    made: dict[str, Array] = {}
    used: set[str] = set()
    for mark, (names, decode) in DECODERS.items():
        for key in (key for key in tensors if key.endswith(f".{mark}") and key not in used):
            module = key.removesuffix(f".{mark}")
            parts = {name: tensors[f"{module}.{name}"] for name in names if f"{module}.{name}" in tensors}
            made[f"{module}.weight"] = decode(parts, settings).astype(np.float32)
            used |= {f"{module}.{name}" for name in names}
    return {key: value for key, value in tensors.items() if key not in used and key not in made} | made


def quantizer_settings(folder: Path) -> Mapping[str, Any]:
    root = checkpoint_root(folder)
    found = read_json_object(folder / "config.json", root).get("quantization_config")
    for name in SETTINGS:
        if not found and (folder / name).exists():
            found = read_json_object(folder / name, root)
    return found if isinstance(found, dict) else {}


def shifted_out(words: Array, bits: int) -> Array:
    """The fields of words: [..., n] to [..., n, 32 / bits]."""
    unsigned = words.astype(np.int64) & 0xFFFFFFFF
    return unsigned[..., None] >> np.arange(0, 32, bits) & (1 << bits) - 1


def integers_in_words(parts: Tensors, settings: Mapping[str, Any]) -> Array:
    """AWQ, whose words hold outputs, and GPTQ, whose words hold inputs."""
    scales = parts["scales"].astype(np.float32)
    outputs = scales.shape[1]
    qweight, qzeros = parts["qweight"], parts["qzeros"]
    if qweight.shape[1] != outputs:
        fields = (shifted_out(words, 4)[..., AWQ_FIELDS] for words in (qweight, qzeros))
        codes, zeros = (each.reshape(len(each), -1) for each in fields)
    else:
        bits = 32 * qzeros.shape[1] // outputs
        form = settings.get("packing_format") or settings.get("checkpoint_format") or settings.get("format")
        one = 0 if form in ZEROS_AS_THEY_ARE else sum(1 << place for place in range(0, 32, bits))
        zeros = shifted_out(qzeros.astype(np.int64) + one, bits).reshape(len(qzeros), -1)
        codes = shifted_out(qweight, bits).transpose(0, 2, 1).reshape(-1, outputs)
    group_of = parts.get("g_idx")
    if group_of is None:
        group_of = np.arange(len(codes)) * len(scales) // len(codes)
    return ((codes - zeros[group_of]) * scales[group_of]).T


def compressed(parts: Tensors, settings: Mapping[str, Any]) -> Array:
    """compressed-tensors, format pack-quantized; what it subtracts from codes and zero points cancels."""
    outputs, inputs = map(int, parts["weight_shape"])
    packed, scales = parts["weight_packed"], parts["weight_scale"].astype(np.float32)
    bits = 32 * packed.shape[1] // inputs
    codes = shifted_out(packed, bits).reshape(outputs, -1)[:, :inputs]
    zeros: Array = np.full(scales.shape, 1 << bits - 1)
    if "weight_zero_point" in parts:
        zeros = parts["weight_zero_point"]
        if zeros.dtype == np.int8:
            zeros = zeros.astype(np.int64) + (1 << bits - 1)
        else:
            zeros = shifted_out(zeros.T, bits).reshape(scales.shape[1], -1)[:, :outputs].T
    group_of = parts.get("weight_g_idx")
    if group_of is None:
        group_of = np.arange(inputs) * scales.shape[1] // inputs
    return (codes - zeros[:, group_of]) * scales[:, group_of]


def in_blocks(parts: Tensors, settings: Mapping[str, Any]) -> Array:
    """Floats of 8 bits, each multiplied by the scale of its block."""
    height, width = settings.get("weight_block_size") or (128, 128)
    weight = parts["weight"].astype(np.float32)
    scales = np.repeat(np.repeat(parts["weight_scale_inv"].astype(np.float32), height, axis=0), width, axis=1)
    return weight * scales[: weight.shape[0], : weight.shape[1]]


def in_rows(parts: Tensors, settings: Mapping[str, Any]) -> Array:
    """Floats of 8 bits with one scale, or one for each row."""
    return parts["weight"].astype(np.float32) * parts["weight_scale"].astype(np.float32).reshape(-1, 1)


Decoder = Callable[[Tensors, Mapping[str, Any]], Array]
ACTIVATIONS = ("input_scale", "output_scale")
DECODERS: dict[str, tuple[tuple[str, ...], Decoder]] = {
    "qweight": (("qweight", "qzeros", "scales", "g_idx"), integers_in_words),
    "weight_packed": (
        ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
        compressed,
    ),
    "weight_scale_inv": (("weight", "weight_scale_inv", *ACTIVATIONS), in_blocks),
    "weight_scale": (("weight", "weight_scale", *ACTIVATIONS), in_rows),
}
