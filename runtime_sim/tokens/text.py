"""Text to tokens and back, as a model's `config/` folder says: the one place where tokens are made.

transformers makes them, in a process of its own (`runtime_sim.tokens.tokenizer`): without torch it is there
within a second, this process stays free of both, and what the folder's files do has limits. The process sees
a folder with links to those files only that belong to a tokenizer, so no code beside them can be found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError
from compiler.files import JSON_BYTES, checkpoint_root, open_file, read_json_object, read_text
from runtime_sim.tokens.confined import Limits
from runtime_sim.tokens.library import LibraryPart

REQUEST = Limits(seconds=10, megabytes=512)
TEMPLATE_BYTES = 1 << 20  # the longest template seen has 20 KB
TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
VOCABULARIES = (  # any one of them
    "tokenizer.json",
    "vocab.json",
    "tokenizer.model",
    "tiktoken.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
)


@dataclass(frozen=True)
class Places:
    """A prompt with one token for each picture, where many are to be."""

    tokens: list[int]
    place: int  # the token that keeps the place of a row
    before: list[int]  # tokens before all rows of a picture
    after: list[int]

    def fill(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """The prompt with so many places for each picture, and where each begins."""
        left, tokens, starts = iter(counts), list[int](), list[int]()
        for token in self.tokens:
            if token != self.place:
                tokens.append(token)
                continue
            tokens += self.before
            starts.append(len(tokens))
            tokens += [token] * next(left) + self.after
        return tokens, starts


class Text:
    """The tokenizer, the chat template and the stop tokens of a model. Loading goes on until first used."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self._settings = _settings(config)
        link = partial(link_tokenizer, config)
        self._part = LibraryPart(self._tokenizer, "tokenizer", link, REQUEST, self._advice)

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, with those the tokenizer puts around it."""
        return [*self._ask(self._tokenizer, "encode", _checked(text))]

    def encode_chat(self, prompt: str) -> list[int]:
        """A user's message in the chat template, ready for the answer; plain where there is no template."""
        return [*self._ask(self._template, "encode_chat", _checked(prompt))]

    def place_pictures(self, prompt: str, count: int, raw: bool) -> Places:
        """A user's message about pictures, ready for the answer; `raw` without the template."""
        part = self._tokenizer if raw else self._template
        found = self._ask(part, "place_pictures", _checked(prompt), count, raw)
        return Places(**found)

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text as it becomes known."""
        self._ask(self._tokenizer, "begin_answer")
        for token in tokens:
            yield self._ask(self._tokenizer, "extend_answer", token)
        yield self._ask(self._tokenizer, "end_answer")

    def stop_ids(self, chat: bool = True) -> frozenset[int]:
        """Tokens that end an answer (without `chat`: a text), from all the places where models name them."""
        found = {number for name in self._settings for number in self._end_ids(name)}
        found.add(self._ask(self._tokenizer, "end_of_text"))
        if chat:
            found.add(self._ask(self._template, "end_of_turn"))
        return frozenset(found - {None})

    def beyond(self, rows: int) -> list[tuple[int, str]]:
        """The tokens that an embedding of so many rows has no row for."""
        return [(number, word) for number, word in self._ask(self._tokenizer, "beyond", rows)]

    def _ask(self, part: str, name: str, *arguments: Any) -> Any:
        return self._part.ask(f"{part} fails", name, *arguments)

    @property
    def _tokenizer(self) -> str:
        return f"the tokenizer of {self.config}"

    @property
    def _template(self) -> str:
        names = [name for name in (TEMPLATE, "tokenizer_config.json") if (self.config / name).is_file()]
        return f"the chat template of {self.config / names[0] if names else self.config}"

    def _advice(self, problem: str) -> str:
        """Why loading failed, and what to do where it is known."""
        if "No module named 'transformers'" in problem:
            return "transformers is not installed (pip install transformers)"
        if any((self.config / name).exists() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
            return problem.replace(f"{self._part.folder}/", "")
        return (
            "it has no tokenizer.json, only a form that sentencepiece and protobuf, or tiktoken, read: "
            "install these packages, or write a tokenizer.json with AutoTokenizer and save_pretrained"
        )

    def _end_ids(self, name: str) -> list[int]:
        """eos_token_id of a file: nothing, a number or a list of numbers."""
        value = self._settings[name].get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(each) is int for each in ids):
            found = f"eos_token_id is {str(value)[:40]}, expected a number or a list of numbers"
            raise UserError(f"{self.config / name}: {found}")
        return ids


def _settings(config: Path) -> dict[str, dict[str, Any]]:
    """The files that name end tokens, where they are."""
    root = checkpoint_root(config)
    paths = [config / name for name in ("generation_config.json", "config.json")]
    return {path.name: read_json_object(path, root) for path in paths if os.path.lexists(path)}


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the prompt is not text in UTF-8") from None
    return text


def link_tokenizer(config: Path, target: Path) -> None:
    """Links in an empty folder to the files of a tokenizer, each of which is sound as a file."""
    if not config.is_dir():
        raise UserError(f"{config} is not a folder: --config takes the folder of the model's tokenizer")
    if not any(os.path.lexists(config / name) for name in VOCABULARIES):
        raise UserError(
            f"{config} has no tokenizer (tokenizer.json): put the model's there, or give --config its folder"
        )
    names = [*SETTINGS, *VOCABULARIES, "merges.txt", TEMPLATE]
    (target / MORE_TEMPLATES).mkdir()
    paths = [config / name for name in names] + sorted((config / MORE_TEMPLATES).glob("*.jinja"))
    for path in paths:
        if os.path.lexists(path):
            _check(path, checkpoint_root(config))
            (target / path.relative_to(config)).symlink_to(path.resolve())


def _check(path: Path, root: Path) -> None:
    """UserError for what is no regular file of the checkpoint, too large, or not what its name says."""
    if path.name in SETTINGS:
        read_json_object(path, root)
    elif path.suffix == ".jinja":
        read_text(path, TEMPLATE_BYTES, root)
    else:
        with open_file(path, root) as file:
            size = os.fstat(file.fileno()).st_size
        if size > JSON_BYTES:
            raise UserError(f"{path} has {size} bytes, expected at most {JSON_BYTES}")
