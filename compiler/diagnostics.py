"""Errors that name the place in the model, both numbers, and how to see it again; notes, for what is none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.ir.core import Op
    from compiler.ir.location import Location


LINE = 1000  # characters of a message's line that are shown
LONGEST_WORD = 100  # characters of somebody's file that a message repeats

# The one log: warnings are notes to the user, the rest is what is being done. `command.show_log` prints it.
log = logging.getLogger("compiler")


def printable(text: str) -> str:
    """A message for a terminal: whatever names of files and keys hold, it is shown and not obeyed."""
    return "\n".join(_printable_line(line) for line in text.split("\n"))


def _printable_line(line: str) -> str:
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line[:LINE])
    return shown + (" ..." if len(line) > LINE else "")


def shown(word: str) -> str:
    """A word of somebody's file as a message repeats it: on one line, printable, and not too long."""
    if len(word) > LONGEST_WORD:
        return f"{word[:LONGEST_WORD]!r}..."
    return word if word.isprintable() else repr(word)


class CompileError(Exception):
    """The input cannot be compiled. ``str()`` is one line; ``render()`` is the whole diagnostic."""

    exit_code = 1

    def __init__(
        self,
        message: str,
        loc: Location | None = None,
        notes: Sequence[str] = (),
        *,
        op: Op | None = None,
        ir_line: str | None = None,
        position: Location | None = None,
    ) -> None:
        """``loc``: origin in the model; ``position``: place in an IR text; ``ir_line``: the op there."""
        super().__init__(message)
        self.message = message
        self.loc = loc
        self.notes = list(notes)
        self.op = op
        self.ir_line = ir_line
        self.position = position

    def __str__(self) -> str:
        return f"{self.loc}: {self.message}" if self._known(self.loc) else self.message

    def render(self) -> str:
        """The diagnostic as printed to a user: place, message, IR line, notes."""
        place = self.position or (self.loc if self._known(self.loc) else None)
        lines = [f"{place}: error: {self.message}" if place else f"error: {self.message}"]
        if self.ir_line:
            lines.append(f"    {self.ir_line}")
        if self.position and self._known(self.loc) and self.loc != self.position:
            lines.append(f"note: from {self.loc}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    @staticmethod
    def _known(loc: Location | None) -> bool:
        return loc is not None and str(loc) != "unknown"


class UserError(CompileError):
    """The user's input or flags are wrong: one or two lines, exit code 2, nothing written."""

    exit_code = 2
