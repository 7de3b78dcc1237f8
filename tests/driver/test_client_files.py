"""What of a checkpoint goes beside its bmodel."""

from __future__ import annotations

import os

import pytest

from compiler.diagnostics import UserError
from driver.client_files import copy_client_files
from tests.driver.output_runs import files

FOR_CLIENTS = ("config.json", "tokenizer.json", "chat_template.jinja", "spiece.model", "qwen.tiktoken", "LICENSE")
FOR_OTHERS = ("model.safetensors", "model.safetensors.index.json", "modeling.py", ".env", "README.md", "x.bin",
              "adapter_config.json", "training_args.json")  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_clients_get_what_they_read(checkpoint, tmp_path, caplog):
    for name in (*FOR_CLIENTS, *FOR_OTHERS):
        (checkpoint / name).write_text("1")
    copy_client_files(checkpoint, tmp_path / "config")
    assert files(tmp_path / "config") == dict.fromkeys(FOR_CLIENTS, "1")
    assert caplog.messages == []


def test_a_link_out_of_the_checkpoint_is_not_followed(checkpoint, tmp_path, caplog):
    (tmp_path / "secret").write_text("1")
    (checkpoint / "LICENSE").symlink_to(tmp_path / "secret")
    copy_client_files(checkpoint, tmp_path / "config")
    assert files(tmp_path / "config") == {"config.json": "{}"}
    assert "LICENSE is left out of the output's config/: " in caplog.text
    assert "is a link out of the checkpoint" in caplog.text


def test_an_unfinished_download_is_noted(checkpoint, tmp_path, caplog):
    (checkpoint / "tokenizer_config.json").symlink_to("blob")
    copy_client_files(checkpoint, tmp_path / "config")
    assert "tokenizer_config.json is left out of the output's config/: cannot read" in caplog.text


def test_a_pipe_is_not_waited_for(checkpoint, tmp_path, caplog):
    os.mkfifo(checkpoint / "tokenizer.json")
    copy_client_files(checkpoint, tmp_path / "config")
    assert "not a regular file" in caplog.text


def test_a_file_too_large_for_what_it_is_is_left_out(checkpoint, tmp_path, caplog):
    with (checkpoint / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    copy_client_files(checkpoint, tmp_path / "config")
    assert "has 1099511627776 bytes" in caplog.text


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot list the files of .*model: No such file"):
        copy_client_files(tmp_path / "model", tmp_path / "config")
