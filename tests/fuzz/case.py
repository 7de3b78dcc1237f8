"""What a case is: files in a folder, a command line, and how to tell that success was success."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class Wrong(Exception):
    """Raised by a check: the command succeeded, and should not have, or not with this result.

    The first line is the same for the same fault.
    """


class Doubt(Exception):
    """Raised by a check: the command succeeded, and a person has to say whether it should have."""


@dataclass(frozen=True)
class Case:
    """One run of a command in a folder that holds its spoilt input."""

    what: str  # how the input was spoilt
    command: str  # "llm_convert", "llm_opt" or "bmodel_tool"
    arguments: list[str]  # paths are relative to the folder
    results: tuple[str, ...] = ()  # what a success makes, and a failure does not; "." for anything new
    dumps: tuple[str, ...] = ()  # those that either may leave
    check: Callable[[], object] | None = None  # called in the folder after a success
    free_text: bool = False  # standard output may hold any character: the model's answer, IR
    verbose: bool = False  # standard error may say more than an error and notes, as the flags ask
    may_find: bool = False  # exit code 1 with a report on standard output is an answer too (check, diff)

    @property
    def line(self) -> str:
        return shlex.join([f"{self.command}.py", *self.arguments])


Make = Callable[..., Case]  # (rng, folder, samples) -> Case; writes the input into the folder


def write_text(path: Path, text: str) -> None:
    """As UTF-8; lone surrogates become bytes that are no UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
