"""Tokens, templates and stop ids from a `config/` folder, as transformers has them."""

import json
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from compiler.diagnostics import UserError
from runtime_sim.text import Text

TEMPLATE = (
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + eos_token }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHRASE = "Hello — naïve 日本語 🙂 world,  two spaces"


@pytest.fixture
def config(tmp_path):
    """Byte-level tokens: any character outside ASCII takes several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|end|>", "<|stop|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": {"__type": "AddedToken", "content": "<|end|>"},
        "chat_template": TEMPLATE,
    })  # fmt: skip
    return tmp_path


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_chat_tokens_are_those_of_transformers(config):
    theirs = AutoTokenizer.from_pretrained(config)
    wanted = theirs.apply_chat_template([{"role": "user", "content": PHRASE}], add_generation_prompt=True)
    wanted = wanted["input_ids"] if hasattr(wanted, "keys") else wanted
    assert Text(config).encode_chat(PHRASE) == wanted


def test_a_template_of_its_own_file_comes_first(config):
    (config / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert Text(config).encode_chat("a") == Text(config).encode("a!")


def test_without_a_template_the_prompt_is_plain(config):
    write(config, "tokenizer_config.json", {})
    assert Text(config).encode_chat("abc") == Text(config).encode("abc")


def test_text_streams_whole_characters(config):
    text = Text(config)
    pieces = list(text.decode_stream(text.encode(PHRASE)))
    assert "".join(pieces) == PHRASE
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_is_shown_at_the_end(config):
    text = Text(config)
    assert "".join(text.decode_stream(text.encode("a日")[:-1])).startswith("a\ufffd")


def test_stop_ids_come_from_all_files(config):
    end = Text(config)._tokenizer.token_to_id("<|end|>")
    write(config, "generation_config.json", {"eos_token_id": [3, 4]})
    write(config, "config.json", {"eos_token_id": 5})
    assert Text(config).stop_ids == {3, 4, 5, end}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "fails: no system role"),
        ("{% for %}", "fails: "),
        ("{{ messages.__class__.__mro__ }}", "fails: "),
    ],
)
def test_templates_that_fail_are_reported(config, template, message):
    (config / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=message):
        Text(config).encode_chat("a")


def test_missing_and_damaged_tokenizers_are_reported(config):
    (config / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        Text(config)
    (config / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="is missing: chat needs the model's tokenizer"):
        Text(config)


def test_neither_torch_nor_transformers_is_imported(config):
    code = (
        "import sys; from pathlib import Path; from runtime_sim.text import Text; import runtime_sim.tool.chat; "
        f"Text(Path({str(config)!r})).encode_chat('a'); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
