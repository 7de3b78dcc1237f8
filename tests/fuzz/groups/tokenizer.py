"""The files beside the weights that say what text and tokens are; chat reads them, a compilation copies them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.case import Case, write_text
from tests.fuzz.checks import same_bytes_as, tokens_as_transformers
from tests.fuzz.mutate import NUMBERS, STRINGS, cut, short, spoil_bytes, spoil_json
from tests.fuzz.samples import CHAT, FLAGS, Samples

PROMPTS = ("hello", "Where is it?", " two  spaces ", "h\u00e9\U0001f600", "<s>", "a\nb", "x" * 40, "")
TOKEN = {"id": 300, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}  # fmt: skip
TOKEN_NAMES = ("<s>", "</s>", "<unk>", "<absent>", {"content": "<s>"}, {"content": 3}, {}, None, "")

TRUNCATION = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
PADDING = {"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
           "pad_type_id": 0, "pad_token": "<unk>"}  # fmt: skip
BOS_FIRST = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}

SPECIALS = "{{ bos_token }}{{ pad_token }} {{ messages[0].content }} <new></s>{{ unk_token }}"

KNOWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "tokenizer.json": {
        "truncation": (TRUNCATION, TRUNCATION | {"max_length": 0}),
        "padding": (PADDING,),
        "post_processor": (BOS_FIRST, {"type": "ByteLevel"}),
        "normalizer": ({"type": "NFC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "x"}),
        "pre_tokenizer": ({"type": "Whitespace"}, {"type": "Metaspace", "replacement": "_"}, None),
        "decoder": ({"type": "WordPiece"}, None),
        "added_tokens": ([TOKEN], [TOKEN | {"id": 10**9}], [TOKEN | {"id": 511}], []),
        "version": (),
        "model": ({"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}, {"type": "BPE"}),
    },
    "tokenizer_config.json": {
        "tokenizer_class": ("LlamaTokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "Evil", 3),
        "bos_token": TOKEN_NAMES,
        "eos_token": TOKEN_NAMES,
        "unk_token": TOKEN_NAMES,
        "pad_token": TOKEN_NAMES,
        "add_bos_token": (True, False, "x"),
        "add_eos_token": (True, False),
        "added_tokens_decoder": ({"300": TOKEN}, {"x": TOKEN}, {"9": TOKEN}, {"600": TOKEN}),
        "additional_special_tokens": (["<new>"], [3]),
        "model_max_length": NUMBERS,
        "truncation_side": ("left", "x"),
        "chat_template": (SPECIALS, SPECIALS, "{{ messages }}", ["{{ x }}"], [{"name": "default", "template": "{{ messages }}"}], {}),
        "auto_map": ({"AutoTokenizer": ["code.Tokenizer", None]},),
        "clean_up_tokenization_spaces": (True,),
        "extra_special_tokens": ({"image_token": "<image>"}, ["<new>"]),
    },
    "special_tokens_map.json": {
        "bos_token": TOKEN_NAMES,
        "eos_token": TOKEN_NAMES,
        "pad_token": TOKEN_NAMES,
        "additional_special_tokens": (["<new>"],),
    },
    "added_tokens.json": {"<new>": (300, 511, 512, 10**9, -1), "<s>": (5,)},
    "generation_config.json": {
        "eos_token_id": ([], [1, 2], "2", [[2]], {"a": 2}, 1.5, *NUMBERS),
        "bos_token_id": NUMBERS,
        "max_new_tokens": NUMBERS,
        "temperature": (0, -1.0, "x"),
    },
    "config.json": {"eos_token_id": ([], [1, 2], "2", [[2]], {"a": 2}, *NUMBERS)},
}
LIKELY = ("tokenizer.json", "tokenizer_config.json", *KNOWN)


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    name = rng.choice(LIKELY)
    if rng.random() < 0.25 and name != "config.json":
        path = samples.copy_checkpoint(folder) / name
        what = spoil(rng, path)
        check = partial(same_bytes_as, samples.default("bf16"))
        return Case(what, "llm_convert", [*FLAGS, "-q", "bf16"], results=("out",), check=check)
    samples.copy_bmodel(folder, CHAT)
    what = vary(rng, folder / "config") if rng.random() < 0.5 else spoil(rng, folder / "config" / name)
    prompt = rng.choice(PROMPTS if rng.random() < 0.9 else STRINGS[1:7])
    prompt = prompt.replace("\0", "")
    flags = ["chat", "model.bmodel", "--max-tokens", "2", "--prompt", prompt.encode(errors="replace").decode()]
    raw = rng.random() < 0.15
    check = None if raw else partial(tokens_as_transformers, flags[-1])
    return Case(what, "bmodel_tool", flags + ["--raw"] * raw, check=check, free_text=True)


def vary(rng: Random, config: Path) -> str:
    """Other settings, each of a kind that checkpoints have; says which."""
    done = []
    for _ in range(rng.choice((1, 2, 3))):
        name = rng.choice(list(KNOWN))
        key = rng.choice([key for key, values in KNOWN[name].items() if values])
        path, value = config / name, rng.choice(KNOWN[name][key])
        settings = json.loads(path.read_bytes()) if path.exists() else {}
        settings[key] = value
        if rng.random() < 0.2 and key != "model":
            del settings[key]
            value = "nothing"
        write_text(path, json.dumps(settings))
        done.append(f"{name}: {key} = {short(value)}")
    return "; ".join(done)


def spoil(rng: Random, path: Path) -> str:
    """Spoil the file in place, or make it; says what was done."""
    data = path.read_bytes() if path.exists() else b"{}"
    if rng.random() < 0.15:
        data, what = rng.choice((spoil_bytes, cut))(rng, data)
        path.write_bytes(data)
    else:
        text, what = spoil_json(rng, json.loads(data), KNOWN[path.name])
        write_text(path, text)
    return f"{path.name}: {what}"
