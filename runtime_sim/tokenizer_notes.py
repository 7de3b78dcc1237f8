"""What a checkpoint's tokenizer will not do for its bmodel, said when it is compiled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler.diagnostics import UserError
from runtime_sim.text import Text

log = logging.getLogger("compiler.tokenizer")


@contextmanager
def tokenizer_noted(folder: Path, rows: int) -> Iterator[None]:
    """Load the tokenizer meanwhile; then note why chat cannot use it, or which tokens have no row of the
    embedding. It is no error: a bmodel works without.
    """
    try:
        text = Text(folder)
    except UserError as error:
        log.warning("%s; chat will not work", error.message)
        yield
        return
    yield
    try:
        unknown = text.beyond(rows)
    except UserError as error:
        log.warning("%s; chat will not work", error.message)
        return
    if unknown:
        number, word = unknown[0]
        problem = "the tokenizer has %d tokens for which the embedding (%d rows) has no row, first %d (%r)"
        log.warning(problem, len(unknown), rows, number, word)
