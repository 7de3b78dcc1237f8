"""Folders that are no checkpoint that can be compiled, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from compiler.diagnostics import UserError, log
from frontend.checkpoint import Checkpoint
from frontend.config import read_config

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"pickle only \({name}\).*\n.*save_pretrained"):
        Checkpoint(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no weights in .*index.json$"):
        Checkpoint(tmp_path)


def test_the_state_of_a_trainer_is_no_pickled_model(tmp_path):
    for name in ("optimizer.pt", "training_args.bin"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"no weights in .*\ntraining_args.bin is what a trainer keeps"):
        Checkpoint(tmp_path)


def test_weights_in_a_folder_inside_are_pointed_at(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    save_file({"w": np.ones(2)}, tmp_path / "checkpoint-500" / "model.safetensors")
    with pytest.raises(
        UserError, match=r"no weights in .*\nthere are some in .*checkpoint-500: give that to -m$"
    ):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_without_its_model_is_told_as_such(tmp_path, has_config):
    write(tmp_path, "adapter_config.json", ADAPTER)
    if has_config:
        write(tmp_path, "config.json", {"model_type": "llama"})
    with pytest.raises(UserError, match=r"holds an adapter \('LORA'\) of the model 'org/base'.*\nmerge"):
        Checkpoint(read_config(tmp_path).folder)


def test_an_adapter_beside_its_model_is_left_out_with_a_note(tmp_path, caplog):
    write(tmp_path, "adapter_config.json", ADAPTER)
    save_file({"w": np.ones(2)}, tmp_path / "model.safetensors")
    assert list(Checkpoint(tmp_path)) == ["w"]
    assert "the adapter (adapter_config.json) is left out" in caplog.text
    assert {record.name for record in caplog.records} == {log.name}, "only what the log gets is printed as a note"


def test_a_folder_with_a_gguf_file_alone_names_it(tmp_path):
    (tmp_path / "model.Q4_0.gguf").touch()
    with pytest.raises(UserError, match=r"no config\.json in .*: give -m .*model\.Q4_0\.gguf$"):
        read_config(tmp_path)
