"""transformers' own tokenizer and template engine, in a process without torch; `Text` is its other end.

The ids are those of AutoTokenizer and apply_chat_template because it is they who make them: which class
rebuilds a tokenizer from which of the files, and how, is some hundreds of lines of theirs and changes often.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime_sim.tokens.confined import serve

# By the word that keeps the places of a picture's rows, one for each: what a prompt has for a picture where
# no template writes it, and the words that stand around all places of one but are not written by templates.
# Source: the processors of Qwen2.5-VL and InternVL in transformers.
PLACES = {
    "<|image_pad|>": ("<|vision_start|><|image_pad|><|vision_end|>", "", ""),
    "<IMG_CONTEXT>": ("<IMG_CONTEXT>\n", "<img>", "</img>"),
}
CLEANED = 8  # characters at the end of a text that its cleaning of spaces (" n't" to "n't") may yet change
ANSWER = "xyzzy"  # a word that no template has


def main(words: Sequence[str]) -> None:
    serve(words, Tokenizer)


class Tokenizer:
    """The tokenizer of a folder, and the answer that it is turning into text."""

    def __init__(self, folder: str) -> None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what only slows the import down
        from transformers import AutoTokenizer

        self._folder = Path(folder)
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
        return self._encode_message(prompt) if self._tokens.chat_template else self.encode(prompt)

    def _encode_message(self, content: str | list[dict[str, str]]) -> list[int]:
        chat = [{"role": "user", "content": content}]
        return list(self._tokens.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    def place_pictures(self, prompt: str, count: int, raw: bool) -> dict[str, Any]:
        """A prompt (`raw`: without the template) about pictures, which are before the text where it does not
        place them itself: its tokens with one place for each, this place, and the tokens around places.
        """
        word, place = self._place()
        written, before, after = PLACES.get(word, (word, "", ""))
        text = prompt if word in prompt else written * count + prompt
        parts = [*[{"type": "image"}] * count, {"type": "text", "text": prompt}]
        ids = self.encode(text) if raw else self._with_parts(parts, place, count) or self.encode_chat(text)
        if (found := ids.count(place)) != count:
            raise ValueError(f"the prompt has places ({word}) for {found} pictures, and {count} are given")
        around = [self._tokens(each, add_special_tokens=False)["input_ids"] for each in (before, after)]
        return {"tokens": ids, "place": place, "before": around[0], "after": around[1]}

    def _with_parts(self, parts: list[dict[str, str]], place: int, count: int) -> list[int] | None:
        """A message of several parts; None from a template that knows only text."""
        try:
            ids = self._encode_message(parts)
        except Exception:  # whatever the template's program says of parts
            return None
        return ids if ids.count(place) == count else None

    def _place(self) -> tuple[str, int]:
        """The token that keeps the places of a picture: its word and number."""
        config = json.loads((self._folder / "config.json").read_text())
        number = config.get("image_token_id", config.get("image_token_index"))
        vocabulary = self._tokens.get_vocab()
        words = [word for word in PLACES if word in vocabulary] if number is None else []
        if number is None and not words:
            raise ValueError(f"it has no token for pictures, such as {' or '.join(PLACES)}")
        word = words[0] if words else self._tokens.convert_ids_to_tokens(number)
        return word, vocabulary[word]

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
