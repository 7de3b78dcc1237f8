"""What a checkpoint's tokenizer will not do for its bmodel, said when it is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler.diagnostics import UserError, log
from runtime_sim.tokens.text import Text

USELESS = "%s; chat will not work"
UNKNOWN = "the tokenizer has %d tokens for which the embedding (%d rows) has no row, first %d (%r)"


@contextmanager
def tokenizer_noted(folder: Path, rows: int) -> Iterator[None]:
    """Load the tokenizer meanwhile; then note why chat cannot use it, or which tokens have no row of the
    embedding. It is no error: a bmodel works without.
    """
    text = _loading(folder)
    yield
    if text is not None:
        _note_unknown(text, rows)


def _loading(folder: Path) -> Text | None:
    try:
        return Text(folder)
    except UserError as error:
        log.warning(USELESS, error.message)
        return None


def _note_unknown(text: Text, rows: int) -> None:
    try:
        unknown = text.beyond(rows)
    except UserError as error:
        log.warning(USELESS, error.message)
        return
    if unknown:
        log.warning(UNKNOWN, len(unknown), rows, *unknown[0])
