"""`chat`: the answer to a prompt, from the simulated chip."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from compiler.bmodel import read_bmodel
from compiler.diagnostics import UserError
from runtime_sim.runtime import Runtime
from runtime_sim.session import Session, embedding_table
from runtime_sim.text import Text


def run(arguments: Namespace) -> int:
    config = arguments.config or arguments.file.parent / "config"
    session = open_session(arguments.file, config, arguments.exact)
    text = Text(config)
    prompt = text.encode(arguments.prompt) if arguments.raw else text.encode_chat(arguments.prompt)
    start = time.monotonic()
    count = 0

    def tokens() -> Iterator[int]:
        nonlocal count
        for token in session.stream(prompt):
            if token in text.stop_ids:
                return
            count += 1
            yield token
            if count == arguments.max_tokens:
                return

    for piece in text.decode_stream(tokens()):
        print(piece, end="", flush=True)
    print()
    seconds = time.monotonic() - start
    _note(f"{len(prompt)} tokens read, {count} written in {seconds:.1f} s on the simulated {session.chip}")
    return 0


def open_session(file: Path, config: Path, exact: bool) -> Session:
    """Load a file for generation; its embedding may be in `config/embedding.bin`."""
    runtime = Runtime(read_bmodel(file), exact=exact)
    table = config / "embedding.bin"
    if runtime.has_net("embedding") or not table.is_file():
        return Session(runtime)
    try:
        return Session(runtime, embedding_table(table, runtime))
    except OSError as error:
        raise UserError(f"{table} cannot be read: {error.strerror}") from None


def _note(text: str) -> None:
    """For a person who waits; not for a file or another program."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
