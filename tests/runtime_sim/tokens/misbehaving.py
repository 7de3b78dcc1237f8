"""What a confined process may be asked to do: answer, fail, compute or fill memory without end, or vanish."""

from __future__ import annotations

import os
from collections.abc import Sequence

from runtime_sim.tokens.confined import serve


class Misbehaving:
    def __init__(self, argument: str) -> None:
        if argument == "no start":
            raise ValueError("it does not start")
        self.argument = argument

    def echo(self, *values: object) -> list[object]:
        return [self.argument, *values]

    def setting(self, name: str) -> str | None:
        return os.environ.get(name)

    def fail(self, text: str) -> None:
        raise KeyError(text) if text.isalpha() else ValueError(text)

    def compute(self) -> None:
        while True:
            pass

    def fill(self) -> int:
        return len(bytearray(1 << 34))

    def vanish(self) -> None:
        os._exit(3)


def main(words: Sequence[str]) -> None:
    serve(words, Misbehaving)
