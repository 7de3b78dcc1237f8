"""Checkpoints that are quantized: what their configuration says, and the tensors that hold codes."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import computes_as_the_model
from tests.fuzz.groups.safetensors import header_json, join, split, tensor_entry
from tests.fuzz.mutate import NUMBERS, spoil_json
from tests.fuzz.samples import FLAGS, PACKED, Samples

KNOWN: dict[str, tuple[Any, ...]] = {
    "quant_method": ("awq", "gptq", "compressed-tensors", "auto-round", "fp8", "bitsandbytes", "hqq", 3, None),
    "bits": (2, 3, 4, 8, "4", *NUMBERS),
    "group_size": (-1, 0, 16, 32, 64, "32", *NUMBERS),
    "version": ("gemm", "GEMM", "gemv", "exllama", 1),
    "checkpoint_format": ("gptq", "marlin", "", 2),
    "format": ("pack-quantized", "float-quantized", "int-quantized", None),
    "pack_dtype": ("int32", "int8"),
    "config_groups": ({}, [], None, {"group_0": 1}, {"group_0": {"weights": {}}}),
    "weights": (None, {}, {"num_bits": 8}, {"num_bits": 4, "type": "float"}),
    "input_activations": ({"num_bits": 8}, {}),
    "num_bits": (3, 4, 8, "x"),
    "strategy": ("channel", "tensor", "token", 7),
    "dynamic": ({"-:.*": {}}, [], 1),
    "weight_block_size": ([128, 128], [0, 1], [1], "x"),
}


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    model = samples.copy_checkpoint(folder, rng.choice(list(PACKED)))
    what = rng.choice((settings, settings, tensor, tensor, header, data))(rng, model)
    return Case(f"quantized: {what}", "llm_convert", list(FLAGS), results=("out",), check=computes_as_the_model)


def settings(rng: Random, model: Path) -> str:
    config = json.loads((model / "config.json").read_text())
    text, what = spoil_json(rng, config["quantization_config"], KNOWN)
    config["quantization_config"] = "here"
    write_text(model / "config.json", json.dumps(config).replace('"here"', text))
    return what


def tensor(rng: Random, model: Path) -> str:
    path = model / "model.safetensors"
    spoilt, what = tensor_entry(rng, path.read_bytes())
    path.write_bytes(spoilt)
    return what


def header(rng: Random, model: Path) -> str:
    path = model / "model.safetensors"
    spoilt, what = header_json(rng, path.read_bytes())
    path.write_bytes(spoilt)
    return what


def data(rng: Random, model: Path) -> str:
    """A tensor of whole numbers holds others: any codes are good ones, any zero points too."""
    path = model / "model.safetensors"
    entries, rest = split(path.read_bytes())
    keys = [key for key, entry in entries.items() if entry.get("dtype") in ("I32", "I64")]
    key = rng.choice(keys)
    start, stop = entries[key]["data_offsets"]
    at = rng.randrange(start, stop, 4)
    value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, rng.getrandbits(32)))
    path.write_bytes(join(json.dumps(entries), rest[:at] + value.to_bytes(4, "little") + rest[at + 4 :]))
    return f"{key} holds {value} at byte {at - start}"
