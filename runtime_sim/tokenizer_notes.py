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
    """Loads the tokenizer meanwhile, and then notes why chat cannot use it, or which tokens it cannot feed to an
    embedding of so many rows. It is no error: a bmodel works without.
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
        template = "the tokenizer has %d tokens without a row of the embedding (%d rows), the first is %d (%r)"
        log.warning(template, len(unknown), rows, number, word)
