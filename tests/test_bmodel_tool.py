"""bmodel_tool.py as its user runs it: what it prints, and its exit codes."""

import hashlib
import json
import os
from dataclasses import replace

import pytest

from bmodel_tool import main
from compiler.bmodel import write_bmodel
from tests.runtime_sim.check.programs import add_model, toy_model, toy_table, toy_tokenizer, toy_tokens

pytestmark = pytest.mark.usefixtures("forked_tokenizers")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("info", "none.bmodel"), "cannot read none.bmodel: No such file or directory"),
        (("check", __file__), "not a bmodel"),
        (("disasm", "{file}", "sub"), "there is no net 'sub'; there are add"),
        (("chat", "{file}", "--prompt", "a"), "is not a language model: it has no net 'block_0'"),
        (("verify", "{file}", "--reference", "/none"), "not a language model"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, command, message):
    write_bmodel(tmp_path / "m.bmodel", add_model())
    code = main([each.format(file=tmp_path / "m.bmodel") for each in command])
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def config(tmp_path):
    """A tokenizer whose token t is the letter number t, beside where `chat_tool` writes the model."""
    folder = tmp_path / "out" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(folder)
    return folder


def letters(tokens):
    return "".join(chr(ord("0") + token) for token in tokens)


@pytest.fixture
def chat_tool(tmp_path, capsys, config):
    def call(model, *arguments):
        write_bmodel(tmp_path / "out" / "m.bmodel", model)
        code = main(["chat", str(tmp_path / "out" / "m.bmodel"), "--prompt", "35", *map(str, arguments)])
        return code, capsys.readouterr()

    return call


def test_chat_streams_the_answer_and_nothing_else(chat_tool):
    code, captured = chat_tool(toy_model(), "--max-tokens", 5)
    assert (code, captured.out, captured.err) == (0, letters(toy_tokens(5, 5)) + "\n", "")


def test_chat_stops_at_the_models_end_token(chat_tool, config):
    tokens = toy_tokens(5, 5)
    (config / "generation_config.json").write_text(json.dumps({"eos_token_id": tokens[3]}))
    assert chat_tool(toy_model())[1].out == letters(tokens[:3]) + "\n"


def test_chat_with_the_embedding_on_disk(chat_tool, config):
    (config / "embedding.bin").write_bytes(toy_table().tobytes())
    model = toy_model()
    model = replace(model, nets=[net for net in model.nets if not net.name.startswith("embedding")])
    assert chat_tool(model, "--max-tokens", 4)[1].out == letters(toy_tokens(5, 4)) + "\n"


def without_embedding(sha256=""):
    model = toy_model()
    nets = [net for net in model.nets if not net.name.startswith("embedding")]
    return replace(model, nets=nets).with_embedding(sha256)


def test_the_embedding_on_disk_belongs_to_its_file(chat_tool, config, capsys):
    table = toy_table().tobytes()
    model = without_embedding(hashlib.sha256(table).hexdigest())
    missing = "embedding.bin is missing: this file was compiled with --embedding_disk"
    foreign = "is not the embedding that this file was compiled with"
    other = "not rows of 16: it is the embedding of another model"
    for content, message in ((None, missing), (table[::-1], foreign), (table[:-3], other), (b"", other)):
        (config / "embedding.bin").unlink(missing_ok=True)
        if content is not None:
            (config / "embedding.bin").write_bytes(content)
        code, captured = chat_tool(model, "--max-tokens", 4)
        assert (code, captured.out) == (2, "")
        assert message in captured.err
        assert main(["check", str(config.parent / "m.bmodel")]) == 1
        assert message in capsys.readouterr().out
    (config / "embedding.bin").write_bytes(table)
    assert chat_tool(model, "--max-tokens", 4)[1].out == letters(toy_tokens(5, 4)) + "\n"
    assert main(["check", str(config.parent / "m.bmodel")]) == 0


def test_a_pipe_is_no_bmodel(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["info", str(tmp_path / "pipe")]) == 2
    assert "not a regular file" in capsys.readouterr().err
