"""Tokens, templates and stop ids from a `config/` folder; what the folder's files may not do."""

import json
import os
import subprocess
import sys

import pytest

from compiler.diagnostics import UserError
from runtime_sim.tokens import confined
from runtime_sim.tokens import text as text_module
from runtime_sim.tokens.confined import Limits
from runtime_sim.tokens.text import TEMPLATE_BYTES, Text
from tests.runtime_sim.tokens import layouts

pytestmark = pytest.mark.usefixtures("forked_tokenizers")

PHRASE = "Hello — naïve 日本語 🙂 world,  two spaces"


@pytest.fixture
def config(tmp_path):
    """Byte-level tokens: any character outside ASCII takes several."""
    layouts.names_in_a_map(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Text that no test changes the files of."""
    folder = tmp_path_factory.mktemp("plain")
    layouts.names_in_a_map(folder)
    return Text(folder)


START = confined.start


@pytest.fixture
def started(forked_tokenizers, monkeypatch):
    """Processes as users have them, not forked."""
    monkeypatch.setattr(confined, "start", START)


@pytest.fixture
def short_limits(monkeypatch):
    monkeypatch.setattr(text_module, "REQUEST", Limits(seconds=1, megabytes=128))


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def edit(folder, name, **changes):
    write(folder, name, json.loads((folder / name).read_text()) | changes)


def test_a_template_of_its_own_file_comes_first(config):
    (config / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    text = Text(config)
    assert text.encode_chat("a") == text.encode("a!")


def test_without_a_template_the_prompt_is_plain(config):
    write(config, "tokenizer_config.json", {})
    text = Text(config)
    assert text.encode_chat("abc") == text.encode("abc")


def test_text_streams_whole_characters(plain):
    pieces = list(plain.decode_stream(plain.encode(PHRASE)))
    assert "".join(pieces) == PHRASE
    assert "日" in pieces
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_is_shown_at_the_end(plain):
    assert "".join(plain.decode_stream(plain.encode("a日")[:-1])).startswith("a\ufffd")


def test_stop_ids_come_from_all_files(config):
    write(config, "generation_config.json", {"eos_token_id": [3, 4]})
    write(config, "config.json", {"model_type": "llama", "eos_token_id": 5})
    text = Text(config)
    assert text.stop_ids() == {3, 4, 5, *text.encode("</s>")}


def test_tokens_beyond_a_number_of_rows(plain):
    (end,) = plain.encode("</s>")
    assert plain.beyond(end) == [(end, "</s>")]
    assert plain.beyond(end + 1) == []


@pytest.mark.parametrize("value", ["2", [1, "2"], True, {"id": 2}])
def test_stop_ids_that_are_no_numbers_are_refused(config, value):
    write(config, "generation_config.json", {"eos_token_id": value})
    with pytest.raises(UserError, match=r"generation_config.json: eos_token_id is .*, expected a number or"):
        Text(config).stop_ids()


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
RECURSION = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
FAILING_TEMPLATES = {
    "refuses": ("{{ raise_exception('no system role') }}", "fails: no system role"),
    "private attributes": ("{{ messages.__class__.__mro__ }}", "fails: access to attribute '__class__'"),
    "type": ("{{ 1 + 'a' }}", "fails: unsupported operand"),
    "zero": ("{{ 1 // 0 }}", "fails: integer division"),
    "recursion": (RECURSION, "fails: maximum recursion depth"),
    "range": ("{% for i in range(10**9) %}{% endfor %}", "fails: Range too big"),
    "escape sequences": (r"{{ raise_exception('a\x1b[2J\nb') }}", r"fails: a\\x1b\[2J b$"),
}
ENDLESS_TEMPLATES = {
    "syntax": ("{% for %}", "fails: "),
    "string": ("{{ 'a' * 10**10 }}", "needs more than 128 MB"),
    "loops": (LOOPS, "takes more than 1 s"),
}


def test_templates_that_fail_are_reported(config):
    """One template for all, which goes by the prompt: loading a tokenizer takes a second."""
    cases = [f"{{% if messages[0].content == '{name}' %}}{each}{{% endif %}}" for name, (each, _) in FAILING_TEMPLATES.items()]
    (config / "chat_template.jinja").write_text("".join(cases))
    text = Text(config)
    for name, (_, message) in FAILING_TEMPLATES.items():
        check_failure(text, name, message)


@pytest.mark.parametrize(("template", "message"), ENDLESS_TEMPLATES.values(), ids=ENDLESS_TEMPLATES.keys())
@pytest.mark.usefixtures("short_limits")
def test_templates_that_do_not_load_or_end_are_reported(config, template, message):
    (config / "chat_template.jinja").write_text(template)
    check_failure(Text(config), "a", message)


def check_failure(text, prompt, message):
    with pytest.raises(UserError, match=message) as caught:
        text.encode_chat(prompt)
    assert caught.value.message.startswith(f"the chat template of {text.config / 'chat_template.jinja'} fails: ")
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.usefixtures("short_limits", "started")
def test_a_regular_expression_without_end_is_reported(config):
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    edit(config, "tokenizer.json", pre_tokenizer=split)
    with pytest.raises(UserError, match=r"the tokenizer of .* fails: .*(retry-limit|takes more than)"):
        Text(config).encode("a" * 90 + "b")


@pytest.mark.usefixtures("short_limits", "started")
def test_a_normalizer_without_bounds_is_reported(config):
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    edit(config, "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [step] * 6})
    with pytest.raises(UserError, match=r"the tokenizer of .* fails: it .* more than"):
        Text(config).encode("a")


def test_missing_and_damaged_tokenizers_are_reported(config):
    (config / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=f"the tokenizer of {config} cannot be loaded: "):
        Text(config).encode("a")
    (config / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer \(tokenizer.json\): put the model's there"):
        Text(config)
    with pytest.raises(UserError, match="is not a folder: --config takes the folder"):
        Text(config / "config")


def test_a_tokenizer_that_only_other_packages_read_is_told(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(UserError, match="json, only a form that sentencepiece"):
        Text(tmp_path).encode("a")


def make_pipe(path):
    os.mkfifo(path)


def make_link_out(path):
    path.symlink_to(sys.executable)


def make_large(path):
    path.write_bytes(b" " * (TEMPLATE_BYTES + 1))


BAD_FILES = {
    "a pipe": ("tokenizer.json", make_pipe, "it is not a regular file"),
    "a folder": ("added_tokens.json", os.mkdir, "it is not a regular file"),
    "a template that is a pipe": ("chat_template.jinja", make_pipe, "it is not a regular file"),
    "a link out": ("chat_template.jinja", make_link_out, "a link out of the checkpoint"),
    "too large": ("chat_template.jinja", make_large, f"expected at most {TEMPLATE_BYTES}"),
    "no UTF-8": ("chat_template.jinja", lambda path: path.write_bytes(b"\xff"), "not a text file in UTF-8"),
    "no object": ("tokenizer_config.json", lambda path: path.write_text("[]"), "expected a JSON object"),
    "no JSON": ("generation_config.json", lambda path: path.write_text("{,"), "not valid JSON"),
}


@pytest.mark.parametrize(("name", "make", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_files_that_are_not_what_they_should_be(config, name, make, message):
    (config / name).unlink(missing_ok=True)
    make(config / name)
    with pytest.raises(UserError, match=message) as caught:
        Text(config)
    assert name in caught.value.message


def test_links_into_the_repository_of_a_cache_are_followed(config, tmp_path):
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "0a"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (config / name).rename(blobs / name)
        (snapshot / name).symlink_to(blobs / name)
    assert Text(snapshot).encode("</s>")


@pytest.mark.usefixtures("config")
def test_no_room_for_a_temporary_folder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(UserError, match="cannot be loaded: No such file or directory"):
        Text(tmp_path)


@pytest.mark.parametrize("kind", ["AutoTokenizer", "AutoProcessor", "pipeline", "logging", "Theirs", 3])
def test_code_of_a_checkpoint_is_never_run(config, tmp_path, kind):
    proof = tmp_path / "ran"
    (config / "theirs.py").write_text(
        f"open({str(proof)!r}, 'w'); from transformers import GPT2Tokenizer as Theirs"
    )
    edit(
        config,
        "tokenizer_config.json",
        tokenizer_class=kind,
        auto_map={"AutoTokenizer": ["theirs.Theirs", None]},
    )
    with pytest.raises(UserError, match="cannot be loaded: "):
        Text(config).encode("a")
    assert not proof.exists()


def test_a_class_that_ignores_the_vocabulary_is_told(tmp_path):
    """transformers makes a tokenizer of three special tokens, for which any text is nothing."""
    settings = {"tokenizer_class": "LlamaTokenizer"}
    layouts.save(tmp_path, config={"model_type": "llama"}, vocab={"a": 0, "b": 1}, tokenizer_config=settings)
    with pytest.raises(UserError, match="cannot be loaded: its class reads none of the vocabulary files"):
        Text(tmp_path).encode("a")


@pytest.mark.parametrize("content", ["{{ messages[1].content }}", "{{ raise_exception('no answers') }}"])
def test_the_end_of_a_turn_is_what_the_template_writes(config, content):
    """One that takes no answers says nothing of their ends."""
    user = "{% if messages | length == 1 %}a{% else %}" + content + "<s>{% endif %}"
    (config / "chat_template.jinja").write_text(user)
    text = Text(config)
    start, end = text.encode("<s></s>")
    assert text.stop_ids() == ({start, end} if "content" in content else {end})
    assert text.stop_ids(chat=False) == {end}


@pytest.mark.usefixtures("started")
def test_a_machine_without_transformers_is_told_so(config, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("-packages")])
    with pytest.raises(UserError, match="cannot be loaded: transformers is not installed"):
        Text(config).encode("a")


def test_a_prompt_that_is_no_text_is_refused(config):
    with pytest.raises(UserError, match="the prompt is not text in UTF-8"):
        Text(config).encode("a\udcff")


def test_neither_torch_nor_transformers_is_imported(config):
    code = (
        "import sys; from pathlib import Path; from runtime_sim.tokens.text import Text; import runtime_sim.tool.chat; "
        f"Text(Path({str(config)!r})).encode_chat('a'); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_tokenizer_does_without_torch(config):
    code = (
        "import sys; from runtime_sim.tokens.tokenizer import Tokenizer; "
        f"Tokenizer({str(config)!r}).encode_chat('a'); assert sys.modules['torch'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
