"""The dumps of a compilation as one HTML page: each net's passes, the IR before and after each, and modules.

`passes.html` shows it. Texts are packed, and unpacked when they are looked at; of very long ones the page has
the beginning, and where lines are too many it does not say which are equal.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import Any

from compiler.diagnostics import CompileError
from compiler.files import read_text
from compiler.page import write_page
from passes.manager import HEADER

TEMPLATE = Path(__file__).with_name("passes.html")
PAGE = "index.html"
DUMP = re.compile(r"(?P<net>.+)\.(?P<number>\d{2,})\.(?P<name>[\w-]+)\.mlir")
SHOWN_LINES = 20_000  # of a dump
COMPARED_LINES = 6_000  # the comparison takes the square of it where much differs
DUMP_BYTES = 1 << 30
VALUE = re.compile(r"%[\w#]+")

Change = tuple[int, int, int, int]  # lines [first, last) became lines [start, end)


@contextmanager
def passes_page(folder: Path | None) -> Iterator[None]:
    """Write the page of the dumps in a folder when the block ends, also where a pass failed in it."""
    try:
        yield
    except BaseException:
        with suppress(CompileError):  # that of the block is to be told
            write_passes(folder)
        raise
    write_passes(folder)


def write_passes(folder: Path | None) -> None:
    if folder is not None and folder.is_dir():
        write_page(folder / PAGE, TEMPLATE, page_data(folder))


def page_data(folder: Path) -> list[dict[str, Any]]:
    """Of each net in a folder of dumps, its passes in order."""
    found = [(match, path) for path in folder.iterdir() if (match := DUMP.fullmatch(path.name))]
    found.sort(key=lambda each: (each[0]["net"], int(each[0]["number"])))
    nets = []
    for name, dumps in groupby(found, key=lambda each: each[0]["net"]):
        nets.append({"name": name, "passes": list(passes_of([(m["name"], path) for m, path in dumps]))})
    return nets


def passes_of(dumps: Sequence[tuple[str, Path]]) -> Iterator[dict[str, Any]]:
    """Each with its text and what the pass changed; the first has no `changes`."""
    before: list[str] | None = None
    for name, path in dumps:
        lines = lines_of(path)
        shown = lines[:SHOWN_LINES]
        packed = base64.b64encode(zlib.compress("\n".join(shown).encode(), 9)).decode()
        yield {
            "name": name,
            "file": path.name,
            "lines": len(lines),
            "left": len(lines) - len(shown),
            "text": packed,
            "changes": None if before is None else changes(before, shown),
        }
        before = shown


def lines_of(path: Path) -> list[str]:
    """Of a dump, without the passes that are left, which is another line after each of them."""
    first, _, rest = read_text(path, DUMP_BYTES).partition("\n")
    text = rest if first.startswith(HEADER.strip()) else f"{first}\n{rest}"
    return text.rstrip("\n").split("\n")


def changes(before: Sequence[str], after: Sequence[str]) -> list[Change] | None:
    """Which lines became which others, where values may have other numbers; None for too many to say."""
    if max(len(before), len(after)) > COMPARED_LINES:
        return [] if before == after else None
    matcher = SequenceMatcher(None, unnumbered(before), unnumbered(after))
    return [tuple(places) for tag, *places in matcher.get_opcodes() if tag != "equal"]  # type: ignore[misc]


def unnumbered(lines: Sequence[str]) -> list[str]:
    return [VALUE.sub("%", line) for line in lines]
