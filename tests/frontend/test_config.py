"""Reading config.json, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from compiler.diagnostics import UserError
from frontend.config import ModelConfig, read_config


def folder_with(tmp_path: Path, config: Any) -> Path:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return tmp_path


def test_a_good_config_is_read_without_torch(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    config = read_config(tiny_checkpoint("qwen3"))
    assert (config.model_type, config.dtype, config.max_positions) == ("qwen3", "bfloat16", 512)
    assert config.linear_inputs() == {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads * head_dim": 256,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"config.json:1:2: not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ({"hidden_size": 4}, "has no model_type"),
        ({"model_type": 7}, "has no model_type"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "hqq"}},
            "config.json: weights quantized by 'hqq' are not supported, those by awq, gptq, auto-round",
        ),
        ({"model_type": "lama"}, "unknown model_type 'lama'\nllm_convert.py --list has the .*, among them .*llama"),
        ({"model_type": "t5"}, "unknown model_type 't5'\nllm_convert.py --list"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "m.py"}}, "unknown model_type 'mine'"),
    ],
)
def test_a_bad_config_is_one_clear_message(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        read_config(folder_with(tmp_path, config))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        read_config(tmp_path)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"no folder {tmp_path}/absent"):
        read_config(tmp_path / "absent")
    with pytest.raises(UserError, match=f"no config.json in {tmp_path}"):
        read_config(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"):
        read_config(tmp_path / "file")


@pytest.mark.parametrize(("owner", "method"), [(Path, "iterdir"), (os, "open")])
def test_what_may_not_be_read_is_named(tmp_path, monkeypatch, owner, method):
    def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    folder_with(tmp_path, {"model_type": "llama"})
    monkeypatch.setattr(owner, method, denied)
    with pytest.raises(UserError, match=f"cannot read {tmp_path}.*Permission denied"):
        read_config(tmp_path)


def test_an_untested_type_of_transformers_is_let_through(tmp_path):
    assert read_config(folder_with(tmp_path, {"model_type": "mistral"})).model_type == "mistral"


def test_length_beyond_the_models_positions_is_refused():
    config = ModelConfig(Path("model"), {"max_position_embeddings": 2048})
    config.check_length(2048)
    with pytest.raises(
        UserError, match=r"-s 2049 is more than max_position_embeddings 2048 of model/config.json"
    ):
        config.check_length(2049)
    ModelConfig(Path("model"), {}).check_length(10**6)


def test_yarn_stretches_the_models_positions():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = ModelConfig(Path("model"), {"max_position_embeddings": 64, "rope_scaling": yarn})
    config.check_length(256)
    with pytest.raises(
        UserError, match=r"-s 257 is more than original positions x factor = 256 of model"
    ):
        config.check_length(257)
    ModelConfig(Path("model"), {"max_position_embeddings": 999, "rope_scaling": yarn}).check_length(999)


@pytest.mark.parametrize(
    "place",
    [
        {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 32}},
        {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 32}},
        {"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 32},
    ],
)
def test_longrope_has_other_factors_beyond_its_original_length(place):
    config = ModelConfig(Path("model"), {"max_position_embeddings": 128, **place})
    assert [config.by_long_factors(length) for length in (32, 33, 128)] == [False, True, True]
    config.check_length(128)
    with pytest.raises(UserError, match="-s 129 is more than max_position_embeddings 128"):
        config.check_length(129)


def test_other_ropes_have_one_set_of_factors():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    assert not ModelConfig(Path("model"), {"rope_scaling": yarn}).by_long_factors(64)
    assert not ModelConfig(Path("model"), {"rope_scaling": {"rope_type": "longrope"}}).by_long_factors(64)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            {"num_attention_heads": 5, "num_key_value_heads": 2},
            "num_attention_heads 5 is not a multiple of num_key",
        ),
        (
            {"num_attention_heads": 2, "num_key_value_heads": 4},
            "num_attention_heads 2 is not a multiple of num_key",
        ),
        (
            {"hidden_size": 256, "num_attention_heads": 5},
            "hidden_size 256 is not a multiple of num_attention_heads 5",
        ),
    ],
)
def test_counts_of_heads_that_do_not_divide_name_both_keys(tmp_path, heads, message):
    with pytest.raises(UserError, match=message):
        read_config(folder_with(tmp_path, {"model_type": "llama", **heads}))


def test_sizes_that_no_tensor_has_are_refused_before_a_model_is_built():
    shapes = {"a": (64, 32), "b": (32,), "scalar": ()}
    for key in ("hidden_size", "vocab_size", "head_dim", "num_attention_heads"):
        ModelConfig(Path("m"), {key: 64}).check_sizes(shapes)
        with pytest.raises(UserError, match=f"{key} is 65, but no tensor of the checkpoint is wider than 64"):
            ModelConfig(Path("m"), {key: 65}).check_sizes(shapes)
    with pytest.raises(UserError, match="num_hidden_layers is 1000000000, but the checkpoint has 3 tensors"):
        ModelConfig(Path("m"), {"num_hidden_layers": 10**9}).check_sizes(shapes)


def test_models_of_several_parts_are_told_as_such(tmp_path):
    parts = {"text_config": {}, "vision_config": {}}
    message = r"a model that sees \(vision_config, model_type minicpmv\) is not supported yet"
    with pytest.raises(UserError, match=message):
        read_config(folder_with(tmp_path, {"model_type": "minicpmv", **parts}))
    with pytest.raises(UserError, match="has text_config, which model_type llama does not know"):
        read_config(folder_with(tmp_path, {"model_type": "llama", **parts}))


def test_a_model_type_that_would_spoil_a_message_is_quoted(tmp_path):
    with pytest.raises(UserError) as caught:
        read_config(folder_with(tmp_path, {"model_type": "\x1b[31m\n" * 1000}))
    assert len(caught.value.message.splitlines()) == 2
    assert "\x1b" not in caught.value.message


def test_a_group_must_divide_every_linear_input():
    config = ModelConfig(Path("m"), {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9})
    config.check_group(64, 4)
    with pytest.raises(UserError, match=r"-g 128 does not divide hidden_size = 576 .*\n.*16, 32, 64$"):
        config.check_group(128, 4)
    with pytest.raises(UserError, match=r"-g 64 does not divide num_attention_heads \* head_dim = 96"):
        ModelConfig(Path("m"), {"num_attention_heads": 4, "head_dim": 24}).check_group(64, 4)


def test_groups_that_are_no_power_of_two_are_proposed_where_no_other_divides():
    config = ModelConfig(Path("m"), {"hidden_size": 200, "intermediate_size": 1000})
    config.check_group(40, 4)
    with pytest.raises(UserError, match=r"-g 64 does not divide .*\ngroups that do: 8, 10, 20, 25, 40, 50, 100, 200$"):
        config.check_group(64, 4)


def test_widths_that_cannot_be_quantized_in_any_group_are_told_as_such():
    config = ModelConfig(Path("m"), {"hidden_size": 128, "intermediate_size": 1001})
    with pytest.raises(UserError, match=r"intermediate_size = 1001 .*\nno group of 8 to 256 .* use -q bf16 or -q f16"):
        config.check_group(64, 4)


def test_rows_of_codes_fill_bytes():
    config = ModelConfig(Path("m"), {"hidden_size": 75})
    config.check_group(25, 8)
    with pytest.raises(UserError, match=r"hidden_size = 75 .* is odd, and rows of 4-bit weights fill whole bytes"):
        config.check_group(25, 4)


def test_the_name_of_the_dtype_is_found_in_both_spellings():
    assert ModelConfig(Path("m"), {"dtype": "float16"}).dtype == "float16"
    assert ModelConfig(Path("m"), {"torch_dtype": "torch.bfloat16"}).dtype == "bfloat16"
    assert ModelConfig(Path("m"), {}).dtype is None


@pytest.mark.parametrize(
    ("heads", "kv_heads", "possible"),
    [(9, 3, [3]), (14, 2, [2]), (28, 4, [2, 4]), (32, 8, [2, 4, 8]), (4, 2, [2, 4]), (8, None, [2, 4, 8])],
)
def test_devices_have_as_many_heads_each(heads, kv_heads, possible):
    values = {"num_attention_heads": heads} | ({"num_key_value_heads": kv_heads} if kv_heads else {})
    config = ModelConfig(Path("model"), values)
    for devices in range(2, 9):
        if devices in possible:
            config.check_devices(devices, 8)
        else:
            with pytest.raises(UserError, match=f"--num_device {devices}: does not divide num_"):
                config.check_devices(devices, 8)


def test_what_devices_are_possible_is_told():
    config = ModelConfig(Path("model"), {"num_attention_heads": 9, "num_key_value_heads": 3})
    with pytest.raises(
        UserError, match=r"does not divide num_attention_heads = 9 \(model/config.json\); possible are 3$"
    ):
        config.check_devices(2, 8)
    config = ModelConfig(Path("model"), {"num_attention_heads": 12, "num_key_value_heads": 6})
    with pytest.raises(UserError, match=r"num_key_value_heads = 6 .*; possible are 2, 3, 6$"):
        config.check_devices(4, 8)
    ModelConfig(Path("model"), {}).check_devices(8, 8)


@pytest.mark.parametrize("part", ["text_config", "llm_config", None])
def test_settings_of_text_are_found_wherever_a_model_that_sees_keeps_them(part):
    text = {"max_position_embeddings": 64, "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 6}
    values = {"vision_config": {"hidden_size": 40}, **({part: text} if part else text)}
    config = ModelConfig(Path("m"), values)
    assert config.sees
    assert config.max_positions == 64
    assert config.linear_inputs() == {"hidden_size": 96, "intermediate_size": 192}
    with pytest.raises(UserError, match="--num_device 2: a model that sees"):
        config.check_devices(2, 8)


def test_numbers_of_the_parts_of_a_model_are_checked(tmp_path):
    values = {"model_type": "internvl", "vision_config": {"hidden_size": 0}, "text_config": {}}
    with pytest.raises(UserError, match=r"vision_config\.hidden_size is 0, expected a whole number above 0"):
        read_config(folder_with(tmp_path, values))
