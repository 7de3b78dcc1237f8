"""Checkpoints as quantizers write them, by the formulas of their packers: loops over words, slow and plain.

Nothing here is shared with the code that reads them. Codes, zero points and scales are chosen at random, so a
checkpoint is of no real model; `dequantized` says what each weight stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs the packer puts into each field, lowest first
HALF = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

Tensors = dict[str, np.ndarray]


@dataclass
class Linear:
    """A weight as a quantizer has it before packing: integers from 0, groups along the inputs.

    `codes` [outputs, inputs], `zeros` and `scales` [outputs, groups], and the group of each input.
    """

    codes: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray
    g_idx: np.ndarray
    bits: int

    @property
    def order(self) -> np.ndarray:
        """The input that each column is for, when groups come one after the other."""
        return np.array(sorted(range(len(self.g_idx)), key=lambda i: (self.g_idx[i], i)))

    def weight(self) -> np.ndarray:
        steps = self.codes.astype(np.float32) - self.zeros[:, self.g_idx]
        return steps * self.scales.astype(np.float32)[:, self.g_idx]


def random_linear(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    bits: int = 4,
    group: int = 32,
    symmetric: bool = False,
    shuffled: bool = False,
    shuffle: int | None = None,  # the seed of the order; linears of one input have one in what GPTQ writes
    scale: str = "float16",
    lowest_zero: int = 1,
) -> Linear:
    """Weights of about the size that keeps a model's activations alive; group 0 is a whole row."""
    outputs, inputs = shape
    group = group or inputs
    groups = inputs // group
    top = 1 << bits
    codes = rng.integers(0, top, shape)
    zeros = np.full((outputs, groups), top // 2)
    if not symmetric:
        zeros = np.clip(rng.normal(top / 2, top / 10, (outputs, groups)).round(), lowest_zero, top - 1).astype(int)
    size = (1 + rng.random((outputs, groups))) * 2 / (top * inputs**0.5)
    g_idx = np.arange(inputs) // group
    if shuffled:
        (rng if shuffle is None else np.random.default_rng(shuffle)).shuffle(g_idx)
    return Linear(codes, zeros, size.astype(HALF[scale]), g_idx, bits)


def words_of(values: Iterable[int], bits: int) -> list[int]:
    """A stream of bits as words of 32, lowest bits first."""
    words, filled, word = [], 0, 0
    for value in values:
        word |= int(value) << filled
        filled += bits
        if filled == 32:
            words, filled, word = [*words, word], 0, 0
    return [*words, word] if filled else words


def as_int32(rows: Iterable[list[int]]) -> np.ndarray:
    return np.array(list(rows), np.uint32).view(np.int32)


# ---- packings: the tensors of one module ----


def awq(linear: Linear) -> Tensors:
    def pack(outputs: np.ndarray) -> list[int]:
        eights = outputs.reshape(-1, 8)
        return words_of((eight[output] for eight in eights for output in AWQ_ORDER), 4)

    return {
        "qweight": as_int32(pack(column) for column in linear.codes.T),
        "qzeros": as_int32(pack(column) for column in linear.zeros.T),
        "scales": np.ascontiguousarray(linear.scales.T),
    }


def gptq(linear: Linear, shift: int = 1, by_word: bool = True) -> Tensors:
    """Zero points less `shift`, which is subtracted from whole words or from each field."""
    one = words_of([shift] * (32 // linear.bits), linear.bits)[0]
    fields = linear.zeros if by_word else (linear.zeros - shift) % (1 << linear.bits)
    zeros = [words_of(column, linear.bits) for column in fields.T]
    if by_word:
        zeros = [[(word - one) % (1 << 32) for word in row] for row in zeros]
    return {
        "qweight": np.ascontiguousarray(as_int32(words_of(row, linear.bits) for row in linear.codes).T),
        "qzeros": as_int32(zeros),
        "scales": np.ascontiguousarray(linear.scales.T),
        "g_idx": linear.g_idx.astype(np.int32),
    }


def gptq_v2(linear: Linear) -> Tensors:
    return gptq(linear, shift=0)


def compressed(linear: Linear, zeros: bool = True) -> Tensors:
    """Signed integers plus the middle of their range, which are the codes from 0 again."""
    found = {
        "weight_packed": as_int32(words_of(row, linear.bits) for row in linear.codes),
        "weight_scale": linear.scales,
        "weight_shape": np.array(linear.codes.shape, np.int64),
    }
    if zeros:
        columns = as_int32(words_of(column, linear.bits) for column in linear.zeros.T)
        found["weight_zero_point"] = np.ascontiguousarray(columns.T)
    return found


# ---- whole checkpoints ----

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AUTO_ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": True, "data_type": "int"}


def compressed_config(bits: int = 4, group: int = 32, symmetric: bool = True, **changes: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
    one = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"]}
    return settings | {"config_groups": {"group_0": one | changes}}


@dataclass
class Quantized:
    """A checkpoint, and what its linears are by module."""

    folder: Path
    linears: dict[str, Linear] = field(default_factory=dict)

    def dequantized(self) -> Tensors:
        """All tensors of the checkpoint that a float model would have, the packed ones in f32."""
        plain = load_file(self.folder / "model.safetensors")
        packed = {key for key in plain if key.rpartition(".")[0] in self.linears and not key.endswith(".bias")}
        kept = {key: value for key, value in plain.items() if key not in packed}
        return kept | {f"{name}.weight": linear.weight() for name, linear in self.linears.items()}


def quantize_checkpoint(
    folder: Path,
    pack: Callable[[Linear], Tensors],
    settings: dict[str, Any] | None,
    chosen: Callable[[str], bool] = lambda module: True,
    seed: int = 0,
    **options: Any,
) -> Quantized:
    """Make the float checkpoint in `folder` one whose chosen linears of layers are packed."""
    rng = np.random.default_rng(seed)
    made = Quantized(folder)
    tensors = load_file(folder / "model.safetensors")
    for key in [key for key in tensors if re.search(r"(_proj|\.w[123])\.weight$", key)]:
        module = key.removesuffix(".weight")
        if chosen(module):
            made.linears[module] = random_linear(tensors.pop(key).shape, rng, **options)
            tensors |= {f"{module}.{name}": values for name, values in pack(made.linears[module]).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if settings is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return made
