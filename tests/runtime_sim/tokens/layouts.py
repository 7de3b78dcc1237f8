"""Folders as published models have them: which file says what, and how the tokenizer works, in small.

Each layout is named after the models that have it. Vocabularies hold all bytes and a few merges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
HEADERS = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' "
    "+ message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
THINKING = (
    "{%- set ns = namespace(last=messages | length - 1) %}\n{%- for m in messages[::-1] %}\n"
    "    {%- if m.role == 'user' %}{%- set ns.last = messages | length - loop.index %}{%- break %}{%- endif %}\n"
    "{%- endfor %}\n{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' }}\n"
    "    {%- if '</think>' in m.content and loop.index0 < ns.last %}{{- m.content.split('</think>')[-1].lstrip('\\n') }}"
    "{%- else %}{{- m.content }}{%- endif %}\n    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n"
    "{%- endif %}"
)
TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
GENERATION = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m['content'] }}"
    "<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | tojson }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class Layout:
    """Writes a folder. A plain prompt begins with the token `first`, if any; `ends` end an answer."""

    write: Callable[[Path], None]
    first: str | None = None
    ends: tuple[str, ...] = ()


def save(folder: Path, tokenizer: Tokenizer | None = None, template: str | None = None, **files: Any) -> None:
    """tokenizer.json, chat_template.jinja, and JSON files by their names without ending."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def special(word: str, **options: bool) -> AddedToken:
    return AddedToken(word, special=True, normalized=False, **options)


def records(tokenizer_words: Iterable[tuple[int, AddedToken]]) -> dict[str, Any]:
    """added_tokens_decoder of a tokenizer_config.json."""
    keys = ("content", "lstrip", "rstrip", "normalized", "single_word", "special")
    return {str(number): {key: getattr(token, key) for key in keys} for number, token in tokenizer_words}


# ---- vocabularies ----


def with_merges(words: Iterable[str], merges: list[tuple[str, str]]) -> dict[str, int]:
    ordered = dict.fromkeys([*words, *("".join(pair) for pair in merges)])
    return {word: number for number, word in enumerate(ordered)}


BYTE_MERGES = [
    ("h", "e"),
    ("l", "l"),
    ("Ġ", "w"),
    ("o", "r"),
    ("Ã", "¯"),
    ("he", "ll"),
    ("Ġw", "or"),
    ("ð", "Ł"),
]
PIECE_MERGES = [
    ("▁", "H"),
    ("l", "l"),
    ("▁", "▁"),
    ("▁", "w"),
    ("o", "r"),
    ("▁w", "or"),
    ("e", "ll"),
    ("▁", "s"),
]


def byte_level(words: Iterable[str] = (), *, split: str | None = None, nfc: bool = False) -> Tokenizer:
    """As of GPT-2: each byte is a character; `words` are special tokens behind the vocabulary."""
    vocabulary = with_merges(sorted(pre_tokenizers.ByteLevel.alphabet()), BYTE_MERGES)
    tokenizer = Tokenizer(models.BPE(vocabulary, BYTE_MERGES))
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    steps = [pre_tokenizers.Split(Regex(split), "isolated"), level] if split else [level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special(word) for word in words])
    return tokenizer


def pieces(words: Iterable[str] = ("<unk>", "<s>", "</s>"), *, prefix: bool = True) -> Tokenizer:
    """As of SentencePiece: spaces are "▁", what is not in the vocabulary becomes bytes."""
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:!?[]/'-0123456789|<>_é"
    alphabet = [*words, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = with_merges(alphabet, PIECE_MERGES)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, PIECE_MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    start = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*start, normalizers.Replace(" ", "▁")])
    end = [decoders.Strip(" ", 1, 0)] if prefix else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *end]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([special(word) for word in words])
    return tokenizer


def begins_with(tokenizer: Tokenizer, word: str) -> Tokenizer:
    step = processors.TemplateProcessing(
        single=f"{word} $A",
        pair=f"{word} $A {word}:1 $B:1",
        special_tokens=[(word, tokenizer.token_to_id(word))],
    )
    before = [processors.ByteLevel(trim_offsets=False)] if tokenizer.token_to_id("Ġw") is not None else []
    tokenizer.post_processor = processors.Sequence([*before, step]) if before else step
    return tokenizer


# ---- layouts ----


def llama2(folder: Path) -> None:
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": INST}
    save(
        folder,
        begins_with(pieces(), "<s>"),
        config={"model_type": "llama"},
        tokenizer_config=settings | names,
    )


def llama3(folder: Path) -> None:
    words = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = begins_with(byte_level(words, split=LLAMA3_SPLIT), words[0])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True}
    names = {"bos_token": words[0], "eos_token": words[1], "chat_template": HEADERS}
    stop = [tokenizer.token_to_id(word) for word in (words[1], words[4])]
    save(
        folder,
        tokenizer,
        config={"model_type": "llama", "eos_token_id": stop},
        tokenizer_config=settings | names,
    )


QWEN = [special(word) for word in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
QWEN_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "bos_token": None,
    "pad_token": "<|endoftext|>",
    "unk_token": None,
}


def qwen2(folder: Path) -> None:
    """The words of the chat are in tokenizer_config.json only."""
    tokenizer = byte_level(split=LLAMA3_SPLIT, nfc=True)
    size = tokenizer.get_vocab_size()
    settings = QWEN_SETTINGS | {"eos_token": "<|im_end|>", "chat_template": CHATML, "add_prefix_space": False}
    settings["added_tokens_decoder"] = records(enumerate(QWEN, size))
    save(folder, tokenizer, config={"model_type": "qwen2"}, tokenizer_config=settings)


def qwen2_in_two_files(folder: Path) -> None:
    """vocab.json and merges.txt, no tokenizer.json; end of text and end of turn are two tokens."""
    vocabulary = with_merges(sorted(pre_tokenizers.ByteLevel.alphabet()), BYTE_MERGES)
    settings = QWEN_SETTINGS | {"eos_token": "<|endoftext|>", "chat_template": CHATML}
    settings["added_tokens_decoder"] = records(enumerate(QWEN, len(vocabulary)))
    save(folder, config={"model_type": "qwen2"}, tokenizer_config=settings, vocab=vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, BYTE_MERGES)) + "\n")


def qwen3(folder: Path) -> None:
    tokenizer = byte_level([token.content for token in QWEN], split=LLAMA3_SPLIT, nfc=True)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    settings = QWEN_SETTINGS | {"eos_token": "<|im_end|>", "chat_template": THINKING}
    settings["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
    save(folder, tokenizer, config={"model_type": "qwen3"}, tokenizer_config=settings)


def gemma(folder: Path) -> None:
    words = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
    tokenizer = pieces(words, prefix=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    names = {f"{word[1:-1]}_token": word for word in words[:4]}
    settings = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "chat_template": TURNS} | names
    save(folder, begins_with(tokenizer, "<bos>"), config={"model_type": "gemma2"}, tokenizer_config=settings)


def mistral(folder: Path) -> None:
    """The template is a file of its own; the class puts a space before the text whatever tokenizer.json does."""
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "add_prefix_space": True,
        "add_bos_token": True,
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = begins_with(pieces(), "<s>")
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    save(folder, tokenizer, INST, config={"model_type": "mistral"}, tokenizer_config=settings | names)


def phi3(folder: Path) -> None:
    """Special tokens take the spaces behind them along."""
    tokenizer = pieces()
    words = [special(word, rstrip=True) for word in ("<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")]
    first = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(words)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "legacy": False,
        "chat_template": PHI,
    }
    settings |= {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    settings["added_tokens_decoder"] = records(enumerate(words, first))
    save(folder, tokenizer, config={"model_type": "phi3"}, tokenizer_config=settings)


def smollm3(folder: Path) -> None:
    """Several templates by name; the default one marks what the model generates."""
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": GENERATION}]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": templates,
    }
    tokenizer = byte_level(["<|im_start|>", "<|im_end|>"])
    save(folder, tokenizer, config={"model_type": "smollm3"}, tokenizer_config=settings)


def smollm3_in_files(folder: Path) -> None:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": "no",
    }
    save(folder, byte_level(["<|im_start|>", "<|im_end|>"]), GENERATION, tokenizer_config=settings)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("no")


def gpt2(folder: Path) -> None:
    """No template, and no token at the beginning."""
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, "add_prefix_space": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    save(folder, byte_level(["<|endoftext|>"]), config={"model_type": "gpt2"}, tokenizer_config=settings)


def gpt_neox(folder: Path) -> None:
    settings = {"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": False, "add_eos_token": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer = byte_level(["<|endoftext|>", "<|padding|>"], nfc=True)
    save(folder, tokenizer, config={"model_type": "gpt_neox"}, tokenizer_config=settings)


def deepseek(folder: Path) -> None:
    """Calls itself LlamaTokenizerFast, and is byte-level."""
    words = ["<\uff5cbegin▁of▁sentence\uff5c>", "<\uff5cend▁of▁sentence\uff5c>"]
    token = {
        "__type": "AddedToken",
        "lstrip": False,
        "rstrip": False,
        "normalized": True,
        "single_word": False,
    }
    settings = {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False}
    settings |= {"bos_token": token | {"content": words[0]}, "eos_token": token | {"content": words[1]}}
    tokenizer = begins_with(byte_level(words, split=LLAMA3_SPLIT), words[0])
    save(
        folder,
        tokenizer,
        config={"model_type": "llama"},
        tokenizer_config=settings | {"chat_template": LINES},
    )


def internlm(folder: Path) -> None:
    """A class that transformers does not have."""
    settings = {"tokenizer_class": "InternLM2Tokenizer", "add_bos_token": True, "add_eos_token": True}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": CHATML}
    tokenizer = begins_with(pieces(), "<s>")
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    save(folder, tokenizer, config={"model_type": "llama"}, tokenizer_config=settings)


def saved_while_training(folder: Path) -> None:
    tokenizer = byte_level(["<s>", "</s>"])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="!")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    save(folder, tokenizer, tokenizer_config=settings | {"chat_template": LINES})


def names_in_a_map(folder: Path) -> None:
    """Special tokens are in special_tokens_map.json only, one as its text, one as a record."""
    record = {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": LINES}
    names = {"bos_token": "<s>", "eos_token": record}
    save(folder, byte_level(["<s>", "</s>"]), tokenizer_config=settings, special_tokens_map=names)


def words_in_a_list(folder: Path) -> None:
    """Tokens that were added later are in added_tokens.json only."""
    tokenizer = byte_level(["<s>", "</s>"])
    added = {"<|im_start|>": tokenizer.get_vocab_size(), "<|im_end|>": tokenizer.get_vocab_size() + 1}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    save(folder, tokenizer, tokenizer_config=settings, added_tokens=added)


def spaces_cleaned(folder: Path) -> None:
    """Whole words; decoding takes out spaces before punctuation."""
    words = [
        "[UNK]",
        "</s>",
        *"Hello world , . ! ? ' n't 's 've I do it naïve user assistant : two s".split(),
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": True}
    save(folder, tokenizer, tokenizer_config=settings | {"eos_token": "</s>", "unk_token": "[UNK]"})


LAYOUTS = {
    "llama2": Layout(llama2, "<s>", ("</s>",)),
    "llama3": Layout(llama3, "<|begin_of_text|>", ("<|end_of_text|>", "<|eot_id|>")),
    "qwen2": Layout(qwen2, None, ("<|im_end|>",)),
    "qwen2_in_two_files": Layout(qwen2_in_two_files, None, ("<|endoftext|>", "<|im_end|>")),
    "qwen3": Layout(qwen3, None, ("<|im_end|>",)),
    "gemma": Layout(gemma, "<bos>", ("<eos>", "<end_of_turn>")),
    "mistral": Layout(mistral, "<s>", ("</s>",)),
    "phi3": Layout(phi3, None, ("<|endoftext|>", "<|end|>")),
    "smollm3": Layout(smollm3, None, ("<|im_end|>",)),
    "smollm3_in_files": Layout(smollm3_in_files, None, ("<|im_end|>",)),
    "gpt2": Layout(gpt2, None, ("<|endoftext|>",)),
    "gpt_neox": Layout(gpt_neox, None, ("<|endoftext|>",)),
    "deepseek": Layout(deepseek, "<\uff5cbegin▁of▁sentence\uff5c>", ("<\uff5cend▁of▁sentence\uff5c>",)),
    "internlm": Layout(internlm, "<s>", ("</s>", "<|im_end|>")),
    "saved_while_training": Layout(saved_while_training, None, ("</s>",)),
    "names_in_a_map": Layout(names_in_a_map, None, ("</s>",)),
    "words_in_a_list": Layout(words_in_a_list, None, ("<|im_end|>",)),
    "spaces_cleaned": Layout(spaces_cleaned, None, ("</s>",)),
}
