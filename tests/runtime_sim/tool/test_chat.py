"""`bmodel_tool.py chat` and its mistakes: what a prompt, a folder or a model's answer may do to it."""

import io
import json
import sys
from dataclasses import replace

import pytest

from bmodel_tool import main
from compiler.bmodel import write_bmodel
from runtime_sim.tool import chat
from tests.runtime_sim.check.programs import ROWS, VOCABULARY, toy_model, toy_table, toy_tokens

pytestmark = pytest.mark.usefixtures("forked_tokenizers")


@pytest.fixture
def config(tmp_path):
    """A tokenizer whose token t is the letter number t; the last one is for the token behind the table."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path / "config"
    folder.mkdir()
    vocabulary = {chr(ord("0") + number): number for number in range(VOCABULARY + 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def ask(tmp_path, capsys, config):
    """Exit code, output and errors of a question."""

    def call(prompt, *arguments, model=None):
        write_bmodel(tmp_path / "m.bmodel", model or toy_model())
        code = main(["chat", str(tmp_path / "m.bmodel"), "--prompt", prompt, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def letters(tokens):
    return "".join(chr(ord("0") + token) for token in tokens)


BEYOND = f"the prompt has token {VOCABULARY} ('X'), the embedding {VOCABULARY} rows: the tokenizer of "


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ("", (), "the prompt is empty"),
        (
            "1" * (ROWS + 1),
            (),
            f"the prompt has {ROWS + 1} tokens, this file takes at most {ROWS}: shorten it",
        ),
        ("1", ("--max-tokens", 0), "--max-tokens 0: expected 1 or more"),
        ("1", ("--max-tokens", -1), "--max-tokens -1: expected 1 or more"),
        (
            "1",
            ("--config", "/none"),
            "/none is not a folder: --config takes the folder of the model's tokenizer",
        ),
        (
            "1",
            ("--config", "/proc/self/fd"),
            "/proc/self/fd has no tokenizer (tokenizer.json): put the model's there",
        ),
        ("1", ("--sample",), "--sample: it has no net 'sample_head', which draws tokens: compile with --do_sample"),
        ("1", ("--seed", 3), "--seed 3: expected 0 or more, and --sample, which draws by it"),
        ("1\udcff", (), "the prompt is not text in UTF-8"),
        ("1X", (), BEYOND),
    ],
)
def test_mistakes_are_one_line(ask, prompt, arguments, message):
    code, out, err = ask(prompt, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_token_beyond_the_table_on_disk_is_refused_by_name(ask, config):
    (config / "embedding.bin").write_bytes(toy_table().tobytes())
    model = toy_model()
    model = replace(model, nets=[net for net in model.nets if not net.name.startswith("embedding")])
    code, out, err = ask("1X", model=model)
    assert (code, out) == (2, "")
    assert BEYOND in err


def test_the_prompt_may_come_from_standard_input(ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"35")))
    assert ask("-", "--max-tokens", 5)[1] == letters(toy_tokens(5, 5)) + "\n"


def test_an_endless_standard_input_is_refused(ask, monkeypatch):
    monkeypatch.setattr(chat, "PROMPT_BYTES", 3)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1111")))
    assert "--prompt -: standard input has more than 3 bytes" in ask("-")[2]


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self):
        return True


def test_a_terminal_is_not_steered_by_an_answer(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    chat.write("a\x1b[2J\x07\x9b1m\r\n\tb é")
    assert sys.stdout.getvalue() == "a\\x1b[2J\\x07\\x9b1m\\x0d\n\tb \\xe9"


def test_a_file_gets_the_answer_as_it_is(capsys):
    chat.write("a\x1b[2J é")
    assert capsys.readouterr().out == "a\x1b[2J é"


def test_end_tokens_of_config_json_are_numbers(ask, config):
    (config / "generation_config.json").write_text(json.dumps({"eos_token_id": "two"}))
    assert "eos_token_id is two, expected a number or a list of numbers" in ask("1")[2]


def test_settings_of_drawing_are_numbers(ask, config):
    (config / "generation_config.json").write_text(json.dumps({"temperature": "hot"}))
    assert "temperature is hot, expected 0 to 1000" in ask("1", "--sample")[2]
