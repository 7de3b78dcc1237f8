"""Text to tokens and back, from the files of a model's `config/` folder.

Uses `tokenizers` and `jinja2`, which transformers brings along, and not transformers itself: nothing here
waits for torch to be imported. The chat template is the model's own; it runs in jinja2's sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from compiler.diagnostics import UserError


class Text:
    """The tokenizer, the chat template and the stop tokens of a model."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings = self._json("tokenizer_config.json")
        self._tokenizer = self._load_tokenizer()
        self.stop_ids = self._stop_ids()

    def _load_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        path = self.config / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{path} is missing: chat needs the model's tokenizer")
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise UserError(f"{path} cannot be read: {error}") from None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.config / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        return content if isinstance(content, dict) else {}

    def _stop_ids(self) -> frozenset[int]:
        """End-of-text tokens, from all the places where models name them."""
        found: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            ids = self._json(name).get("eos_token_id")
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
        token = self._tokenizer.token_to_id(self._special("eos_token") or "")
        return frozenset(found | ({token} if token is not None else set()))

    def _special(self, name: str) -> str | None:
        """A special token's text; the file has it as a string or as a record."""
        value = self.settings.get(name)
        return value.get("content") if isinstance(value, dict) else value

    def encode_chat(self, prompt: str) -> list[int]:
        """A user's message in the chat template, ready for the answer; plain where there is no template."""
        template = self._template()
        if template is None:
            return self.encode(prompt)
        text = self._render(template, [{"role": "user", "content": prompt}])
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, with those the tokenizer puts at its beginning."""
        return list(self._tokenizer.encode(text).ids)

    def _template(self) -> str | None:
        path = self.config / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        template = self.settings.get("chat_template")
        if isinstance(template, list):  # several by name
            template = next((each["template"] for each in template if each.get("name") == "default"), None)
        return template

    def _render(self, template: str, messages: list[dict[str, str]]) -> str:
        """As transformers renders templates: the same options, functions and variables."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(
            value, ensure_ascii=False, **options
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        specials = {name: self._special(name) for name in names if self._special(name)}
        try:
            return environment.from_string(template).render(
                messages=messages, add_generation_prompt=True, tools=None, documents=None, **specials
            )
        except TemplateError as error:
            raise UserError(f"the chat template of {self.config} fails: {error}") from None

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text as it becomes known: a character may take several tokens, and spaces depend on the past."""
        seen: list[int] = []
        done = ""
        for token in tokens:
            seen.append(token)
            text = self._tokenizer.decode(seen, skip_special_tokens=True)
            if text.endswith("\ufffd"):
                continue  # the rest of the character is in the next token
            yield text[len(done) :]
            done = text
        yield self._tokenizer.decode(seen, skip_special_tokens=True)[len(done) :]


def _refuse(message: str) -> NoReturn:
    """The `raise_exception` of templates."""
    from jinja2 import TemplateError

    raise TemplateError(message)
