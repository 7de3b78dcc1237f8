"""What configurations say of quantized weights, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiler.diagnostics import UserError
from frontend.sources.settings import Settings, read_settings
from tests.packers import AUTO_ROUND, AWQ, GPTQ, compressed_config

CONFIG = Path("model") / "config.json"


def read(settings: Any, key: str = "quantization_config") -> Settings | None:
    return read_settings(CONFIG.parent, {key: settings})


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (AWQ, Settings(CONFIG, "awq", 4, 32)),
        (AWQ | {"version": "GEMM", "group_size": -1}, Settings(CONFIG, "awq", 4, 0)),
        (GPTQ, Settings(CONFIG, "gptq", 4, 32, zero_shift=1)),
        (GPTQ | {"checkpoint_format": "gptq_v2", "bits": 8}, Settings(CONFIG, "gptq", 8, 32)),
        (GPTQ | {"dynamic": {"-:.*mlp": {}}}, Settings(CONFIG, "gptq", zero_shift=1)),
        (AUTO_ROUND, Settings(CONFIG, "auto-round", 4, 32, zero_shift=1)),
        (AUTO_ROUND | {"packing_format": "auto_round"}, Settings(CONFIG, "auto-round", 4, 32)),
        (AUTO_ROUND | {"packing_format": "auto_round:auto_awq"}, Settings(CONFIG, "auto-round", 4, 32)),
        (AUTO_ROUND | {"extra_config": {"lm_head": {"bits": 8}}}, Settings(CONFIG, "auto-round", zero_shift=1)),
        (compressed_config(), Settings(CONFIG, "compressed-tensors", 4, 32)),
        (FP8, Settings(CONFIG, "fp8")),
        (FP8 | {"weight_block_size": [64, 32]}, Settings(CONFIG, "fp8", block=(64, 32))),
        ({}, None),
        (None, None),
    ],
)
def test_what_is_said(settings, expected):
    assert read(settings) == expected


def test_an_old_key_of_compressed_tensors():
    settings = compressed_config()
    del settings["quant_method"]
    assert read(settings, "compression_config") == Settings(CONFIG, "compressed-tensors", 4, 32)


def test_groups_of_different_widths_say_nothing_of_all():
    settings = compressed_config()
    settings["config_groups"]["group_1"] = compressed_config(bits=8)["config_groups"]["group_0"]
    assert read(settings) == Settings(CONFIG, "compressed-tensors")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, ("gptq", 4, 128, 1)),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 64, "version": "GEMM"}, ("awq", 4, 64, 0)),
        ("quantization_config.json", AUTO_ROUND, ("auto-round", 4, 32, 1)),
    ],
)
def test_a_quantizers_own_file(tmp_path, name, values, expected):
    (tmp_path / name).write_text(json.dumps(values))
    assert read_settings(tmp_path, {}) == Settings(tmp_path / name, *expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("gptq", "quantization_config is gptq, expected an object"),
        ({"quant_method": "bitsandbytes"}, r"weights quantized by 'bitsandbytes' are not supported, those by awq, .*\nor"),
        ({"load_in_4bit": True}, "weights quantized by '' are not supported"),
        (AWQ | {"version": "gemv"}, "AWQ version 'gemv' is not supported"),
        (AWQ | {"bits": 3}, "weights of 3 bits are not supported, those of 4 bits are"),
        (GPTQ | {"bits": 3}, "weights of 3 bits are not supported, those of 4 and 8 bits are"),
        (GPTQ | {"bits": 2}, "weights of 2 bits are not supported"),
        (GPTQ | {"bits": "four"}, "bits is four, expected a whole number"),
        (GPTQ | {"checkpoint_format": "marlin"}, "GPTQ format 'marlin' is not supported\nsupported: gptq, gptq_v2"),
        (GPTQ | {"is_marlin_format": True}, "GPTQ format 'marlin' is not supported"),
        (GPTQ | {"checkpoint_format": 7}, "checkpoint_format is 7, expected a word"),
        (GPTQ | {"pack_dtype": "int16"}, "pack_dtype 'int16' is not supported"),
        (AUTO_ROUND | {"data_type": "mx_fp"}, "data_type 'mx_fp' is not supported"),
        (AUTO_ROUND | {"packing_format": "auto_round:llm_compressor"}, "packing_format 'auto_round:llm_compressor' is not"),
        (AUTO_ROUND | {"act_bits": 8}, "activations of 8 bits are not supported"),
        (compressed_config() | {"format": "int-quantized"}, "compressed-tensors format 'int-quantized' is not supported"),
        (compressed_config() | {"format": "marlin-24"}, "format 'marlin-24' is not supported"),
        (compressed_config() | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config is not supported"),
        (compressed_config() | {"transform_config": {"config_groups": {}}}, "transform_config, .* is not supported"),
        (compressed_config() | {"config_groups": None}, "config_groups is not an object of groups"),
        (compressed_config(input_activations={"num_bits": 8}), "input_activations are quantized, which is not supported"),
        (compressed_config(weights=None), "a group of config_groups has no weights"),
        (compressed_config(bits=3), "weights of 3 bits are not supported"),
        (compressed_config(weights={"num_bits": 4, "type": "float"}), "the type of weights 'float' is not supported"),
        (compressed_config(weights={"strategy": "token"}), "the strategy of weights 'token' is not supported"),
        (FP8 | {"weight_block_size": [128]}, r"weight_block_size is \[128\], expected two numbers"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(settings, message):
    with pytest.raises(UserError, match=message) as error:
        read(settings)
    assert str(error.value).startswith("model/config.json: ")
    assert str(error.value).count("\n") <= 1


def test_modelopt_is_refused_by_its_file(tmp_path):
    (tmp_path / "hf_quant_config.json").write_text("{}")
    with pytest.raises(UserError, match="weights quantized by 'modelopt' are not supported"):
        read_settings(tmp_path, {})
