"""transformers' own tokenizer and template engine, in a process without torch; `Text` is its other end.

The ids are those of AutoTokenizer and apply_chat_template because it is they who make them: which class
rebuilds a tokenizer from which of the files, and how, is some hundreds of lines of theirs and changes often.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from runtime_sim.tokens.confined import serve

CLEANED = 8  # characters at the end of a text that its cleaning of spaces (" n't" to "n't") may yet change
ANSWER = "xyzzy"  # a word that no template has


def main(words: Sequence[str]) -> None:
    serve(words, Tokenizer)


class Tokenizer:
    """The tokenizer of a folder, and the answer that it is turning into text."""

    def __init__(self, folder: str) -> None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what only slows the import down
        from transformers import AutoTokenizer

        self._tokens: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if self._tokens.get_vocab().keys() <= set(self._tokens.added_tokens_encoder):
            raise ValueError("its class reads none of the vocabulary files there")
        self._unsettled = CLEANED if self._tokens.clean_up_tokenization_spaces else 0
        self.begin_answer()

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, with those the tokenizer puts around it."""
        return list(self._tokens(text)["input_ids"])

    def encode_chat(self, prompt: str) -> list[int]:
        """A user's message in the chat template, ready for the answer; plain where there is no template."""
        if not self._tokens.chat_template:
            return self.encode(prompt)
        chat = [{"role": "user", "content": prompt}]
        return list(self._tokens.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    def end_of_text(self) -> int | None:
        return self._tokens.eos_token_id  # type: ignore[no-any-return]

    def end_of_turn(self) -> int | None:
        """The special token that the template writes behind an answer; not every checkpoint lists it."""
        chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER}]
        try:
            text = self._tokens.apply_chat_template(chat, tokenize=False)
        except Exception:  # no template, or one that takes no answers
            return None
        rest = self._tokens(text.rpartition(ANSWER)[2].lstrip(), add_special_tokens=False)["input_ids"]
        added = self._tokens.added_tokens_decoder
        return rest[0] if rest and rest[0] in added and added[rest[0]].special else None

    def beyond(self, rows: int) -> list[tuple[int, str]]:
        """The tokens whose ids are `rows` or more, in order."""
        return sorted((number, word) for word, number in self._tokens.get_vocab().items() if number >= rows)

    def begin_answer(self) -> None:
        self._answer: list[int] = []
        self._shown = ""

    def extend_answer(self, token: int) -> str:
        """What one more token makes known: a character may take several, and spaces depend on the past."""
        self._answer.append(token)
        text = self._text()
        return "" if text.endswith("\ufffd") else self._show(text[: max(0, len(text) - self._unsettled)])

    def end_answer(self) -> str:
        return self._show(self._text())

    def _text(self) -> str:
        return str(self._tokens.decode(self._answer, skip_special_tokens=True))

    def _show(self, text: str) -> str:
        piece = text[len(self._shown) :]
        self._shown = text
        return piece
