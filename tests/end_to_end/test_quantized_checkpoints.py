"""Checkpoints that are quantized already: their codes in the file, and the tokens of what they stand for."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.ir.types import element
from driver.options import ConvertOptions
from runtime_sim.launch.session import Session
from runtime_sim.tool.verify import verify_file
from tests import packers
from tests.architectures.configs import config_of
from tests.architectures.measure import write
from tests.checkpoints import write_json
from tests.end_to_end.in_file import weights_in_file
from tests.end_to_end.reference import greedy
from tests.end_to_end.tiny import Tiny
from tests.frontend.oracle import reference_model
from tests.packers import AUTO_ROUND, AWQ, GPTQ, Quantized, compressed_config, quantize_checkpoint

PROMPT = np.random.default_rng(3).integers(0, 512, 29).tolist()
COUNT = 5
SMALL = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 512}


@dataclass(frozen=True)
class Case:
    """How a checkpoint is packed, and what becomes of it by default."""

    pack: Callable[[packers.Linear], packers.Tensors]
    settings: dict[str, Any] | None
    mode: str
    dtype: str = "float16"
    chosen: Callable[[str], bool] = lambda module: True
    options: dict[str, Any] | None = None


CASES = {
    "awq": Case(packers.awq, AWQ, "w4f16"),
    "awq in bf16": Case(packers.awq, AWQ, "w4bf16"),
    "gptq": Case(packers.gptq, GPTQ, "w4bf16", "bfloat16", options={"symmetric": True, "scale": "bfloat16"}),
    "gptq 8 bits, zero points": Case(packers.gptq_v2, GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2"}, "w8f16", options={"bits": 8}),
    "gptq, some in 16 bits": Case(packers.gptq, GPTQ, "w4f16", chosen=lambda module: "k_proj" not in module and "up_proj" not in module),
    "gptq, inputs of each linear in an order of its own": Case(packers.gptq, GPTQ | {"desc_act": True}, "w4f16", options={"shuffled": True}),
    "gptq, inputs in one order": Case(
        packers.gptq, GPTQ | {"desc_act": True, "bits": 8}, "w8f16", options={"bits": 8, "shuffled": True, "shuffle": 5}
    ),
    "auto-round as awq": Case(packers.awq, AUTO_ROUND | {"packing_format": "auto_round:auto_awq"}, "w4f16"),
    "compressed": Case(packers.compressed, compressed_config(symmetric=False), "w4f16"),
    "compressed 8 bits": Case(
        partial(packers.compressed, zeros=False), compressed_config(bits=8), "w8f16", options={"bits": 8, "symmetric": True}
    ),
}


@pytest.fixture(scope="module")
def made(tiny_checkpoint, tmp_path_factory) -> Callable[[str], tuple[Quantized, Tiny]]:
    found: dict[str, tuple[Quantized, Tiny]] = {}

    def make(name: str) -> tuple[Quantized, Tiny]:
        if name not in found:
            case, folder = CASES[name], tmp_path_factory.mktemp("quantized") / "model"
            shutil.copytree(tiny_checkpoint("llama", **SMALL, dtype=case.dtype), folder)
            checkpoint = quantize_checkpoint(folder, case.pack, case.settings, case.chosen, **(case.options or {}))
            mode = {"quantize": case.mode} if name == "awq in bf16" else {}
            found[name] = checkpoint, Tiny(ConvertOptions(folder, 64, **mode, out_dir=folder.parent / "out"))
        return found[name]

    return make


@pytest.mark.parametrize("name", CASES)
def test_codes_in_the_file_are_those_of_the_checkpoint(made, name):
    checkpoint, model = made(name)
    assert model.options.quantize == CASES[name].mode
    linears = {module.removeprefix("model.layers.0."): each for module, each in checkpoint.linears.items()}
    rows = {f"{module}.weight": len(each.codes) for module, each in linears.items()}
    found = weights_in_file(model, model.nets["block_cache_0"], rows)
    assert {name.partition("@")[0] for name in found} == rows.keys()
    half = element(model.options.half).numpy
    for name, stored in found.items():
        module, _, order = name.partition("@")
        linear, row = linears[module.removesuffix(".weight")], slice(None)
        if order:
            row = linears[order.removesuffix(".weight.order")].order
        signed = 128 if stored.scheme.signed else 0
        np.testing.assert_array_equal(stored.codes.astype(int) + signed, linear.codes[row][:, linear.order])
        np.testing.assert_array_equal(stored.scales, linear.scales[row].astype(half))
        if stored.scheme.zeros:
            np.testing.assert_array_equal(stored.zeros, linear.zeros[row])
        else:
            assert set(linear.zeros.flat) == {8 if linear.bits == 4 else 128}


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_those_of_the_dequantized_weights(made, name, tmp_path):
    checkpoint, model = made(name)
    tokens = list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))
    assert tokens == greedy(floats_of(checkpoint, tmp_path), PROMPT, COUNT)


def test_floats_of_8_bits_are_weights_of_16(tiny_checkpoint, tmp_path):
    folder, plain = tmp_path / "model", tmp_path / "plain"
    shutil.copytree(tiny_checkpoint("llama", **SMALL), folder)
    shutil.copytree(folder, plain)
    tensors = load_file(folder / "model.safetensors")
    floats = {key: value.astype(np.float32) for key, value in tensors.items()}
    rng = np.random.default_rng(0)
    for key in [key for key in tensors if key.endswith("_proj.weight")]:
        scales = 2.0 ** rng.integers(-3, 3, tuple(-(-size // 128) for size in floats[key].shape)).astype(np.float32)
        spread = np.kron(scales, np.ones((128, 128)))[: floats[key].shape[0], : floats[key].shape[1]].astype(np.float32)
        tensors[key] = (floats[key] / spread).astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{key}_scale_inv"] = scales
        floats[key] = tensors[key].astype(np.float32) * spread
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    save_file(floats, plain / "model.safetensors", {"format": "pt"})
    settings = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()) | settings)
    model = Tiny(ConvertOptions(folder, 64, out_dir=tmp_path / "out"))
    assert model.options.quantize == "bf16"
    tokens = list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))
    assert tokens == greedy(plain, PROMPT, COUNT)


# Of each mixture: how it is packed, and what its experts' gate, up and down are called.
MIXTURES = {
    "qwen3_moe": (Case(packers.awq, AWQ, "w4bf16"), ("gate_proj", "up_proj", "down_proj")),
    "mixtral": (Case(packers.gptq, GPTQ, "w4bf16", options={"symmetric": True}), ("w1", "w3", "w2")),
    "qwen2_moe": (
        Case(packers.compressed, compressed_config(bits=8, symmetric=False), "w8bf16", options={"bits": 8}),
        ("gate_proj", "up_proj", "down_proj"),
    ),
}


def quantized_mixture(name: str, folder: Path) -> Quantized:
    """A checkpoint of one layer with a key for each expert, the linears of experts and attention packed."""
    case, _ = MIXTURES[name]
    write(reference_model({**config_of(name), "num_hidden_layers": 1}), folder)
    return quantize_checkpoint(folder, case.pack, case.settings, **(case.options or {}))


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_that_are_packed_keep_their_codes_and_say_what_they_stand_for(tmp_path, name):
    case, _ = MIXTURES[name]
    checkpoint = quantized_mixture(name, tmp_path / "model")
    model = Tiny(ConvertOptions(tmp_path / "model", 64, out_dir=tmp_path / "out"))
    assert model.options.quantize == case.mode
    linears = linears_by_parts(checkpoint, name)
    found = weights_in_file(model, model.nets["block_cache_0"], {part: len(each.codes) for part, each in linears.items()})
    assert found.keys() == linears.keys()
    for part, linear in linears.items():
        np.testing.assert_array_equal(found[part].codes, linear.codes)
        np.testing.assert_array_equal(found[part].scales, linear.scales.astype(ml_dtypes.bfloat16))
        assert found[part].scheme.zeros != bool((case.options or {}).get("symmetric"))
        if found[part].scheme.zeros:
            np.testing.assert_array_equal(found[part].zeros, linear.zeros)
    tokens = list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))
    (tmp_path / "plain").mkdir()
    assert tokens == greedy(floats_of(checkpoint, tmp_path / "plain"), PROMPT, COUNT)
    assert verify_file(model.path, tmp_path / "model") == 0


def linears_by_parts(checkpoint: Quantized, name: str) -> dict[str, packers.Linear]:
    """By the names that a layer's program gives them: of experts, those of parts of the two parameters."""
    gate, up, down = MIXTURES[name][1]
    found = {}
    for module, linear in checkpoint.linears.items():
        path, rows = module.removeprefix("model.layers.0."), len(linear.codes)
        expert = re.search(r"\.experts\.(\d+)\.(\w+)$", path)
        if expert is None:
            found[f"{path}.weight"] = linear
            continue
        first = f"mlp.experts.gate_up_proj[{expert[1]}]"
        names = {gate: f"{first}[0:{rows}:1]", up: f"{first}[{rows}:{2 * rows}:1]", down: f"mlp.experts.down_proj[{expert[1]}]"}
        found[names[expert[2]]] = linear
    return found


def floats_of(checkpoint: Quantized, folder: Path) -> Path:
    """The checkpoint as one of float32."""
    config = json.loads((checkpoint.folder / "config.json").read_text())
    config.pop("quantization_config")
    write_json(folder / "config.json", config)
    tensors = checkpoint.dequantized()
    save_file({key: value.astype(np.float32) for key, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder
