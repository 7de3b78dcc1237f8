"""Files of others: what is opened, what is refused, and JSON within limits."""

import json
import os

import pytest

from compiler.diagnostics import UserError
from compiler.files import (
    checkpoint_root,
    open_file,
    parse_json_object,
    read_bytes,
    read_json_object,
    write_text,
)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json: it is not a regular file"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_link_to_a_device_is_refused(tmp_path, target):
    (tmp_path / "config.json").symlink_to(target)
    with pytest.raises(UserError, match="not a regular file"):
        read_json_object(tmp_path / "config.json")


def test_a_link_inside_the_checkpoint_is_followed_and_one_out_of_it_is_not(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "real.json").write_text("{}")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "inside.json").symlink_to("real.json")
    (folder / "outside.json").symlink_to("../secret.json")
    root = checkpoint_root(folder)
    assert read_json_object(folder / "inside.json", root) == {}
    with pytest.raises(UserError, match="link out of the checkpoint"):
        read_json_object(folder / "outside.json", root)


def test_the_cache_of_a_hub_is_one_checkpoint(tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "b0").write_text('{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/b0")
    assert read_json_object(snapshot / "config.json", checkpoint_root(snapshot)) == {"a": 1}


def test_a_folder_and_a_missing_file_are_refused_with_the_system_s_reason(tmp_path):
    with pytest.raises(UserError, match="not a regular file"):
        open_file(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        open_file(tmp_path / "nothing")
    with pytest.raises(UserError, match="null byte"):
        open_file(tmp_path / "a\0b")


def test_a_file_beyond_the_limit_is_refused_with_both_numbers(tmp_path):
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(UserError, match="has 11 bytes, expected at most 10"):
        read_bytes(tmp_path / "big", 10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "f:1:2: not valid JSON"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nested deeper than 64 levels"),
        ('{"a": 1, "a": 2}', "key 'a' stands there twice"),
        (f'{{"a": {"9" * 5000}}}', "not valid JSON"),
        ("[]", "expected a JSON object, found list"),
        (b'{"a": "\xff"}', "not valid JSON"),
    ],
)
def test_json_that_is_refused(text, problem):
    with pytest.raises(UserError, match=problem):
        parse_json_object(text, "f")


def test_a_config_of_usual_depth_is_read():
    value = {"a": {"b": [{"c": [1, {}]}]}}
    assert parse_json_object(json.dumps(value), "f") == value


def test_what_is_written_replaces_what_was_there(tmp_path):
    (tmp_path / "out").write_text("longer than the new")
    write_text(tmp_path / "out", "\u00e9\n")
    assert (tmp_path / "out").read_bytes() == b"\xc3\xa9\n"


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot write .*pipe: No such device"):
        write_text(tmp_path / "pipe", "text")
