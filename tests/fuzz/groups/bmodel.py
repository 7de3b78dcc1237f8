"""Bytes of a bmodel: its header, the description of the nets, instructions and weights."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from compiler.bmodel.digest import ABSENT, DIGEST_AT
from compiler.bmodel.flatbuffer import decode
from compiler.bmodel.schema import HEADER_BYTES
from tests.fuzz.case import Case
from tests.fuzz.checks import same_program_as
from tests.fuzz.mutate import cut, spoil_bytes
from tests.fuzz.samples import MODES, RESULTS, TOOL, Samples

Spoil = Callable[[Random, bytes], tuple[bytes, str]]  # spoilt bytes, and what was done to them
Judge = Callable[[Path], None]  # compares with the sample; raises Wrong or Doubt

JUDGES = ("check", "verify")  # what they call right must be right


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    return spoilt_case(rng, folder, samples, "bmodel", spoil, same_program_as, signed=0.5)


def spoilt_case(
    rng: Random, folder: Path, samples: Samples, group: str, spoil: Spoil, judge: Judge, signed: float
) -> Case:
    """Any command on a spoilt file; a share of the files, `signed`, keeps its digest, which must tell."""
    mode = rng.choice(MODES)
    path = samples.copy_bmodel(folder, mode)
    data, what = spoil(rng, path.read_bytes())
    keeps = rng.random() < signed
    path.write_bytes(data if keeps else without_digest(data))
    command = rng.choice([*TOOL, *JUDGES])
    check = partial(judge, samples.bmodel(mode)) if command in JUDGES and keeps else None
    return tool_case(f"{group}: {what}", command, check)


def without_digest(data: bytes) -> bytes:
    """As the vendor's files are: what is wrong must be found otherwise, and no tool may break over it."""
    return data[:DIGEST_AT] + ABSENT + data[HEADER_BYTES:] if len(data) >= HEADER_BYTES else data


def tool_case(what: str, command: str, check: Any = None) -> Case:
    finds = command in ("check", "diff", "verify")
    chats = command == "chat"
    return Case(what, "bmodel_tool", TOOL[command], RESULTS.get(command, ()), check=check, may_find=finds, free_text=chats)


def spoil(rng: Random, data: bytes) -> tuple[bytes, str]:
    kind = rng.choice(("file", "header", "description", "stream", "stream", "weights", "weights"))
    if kind == "file":
        return rng.choice((cut, spoil_bytes))(rng, data)
    start, stop = rng.choice(list(regions(data, kind)))
    spoilt, what = spoil_bytes(rng, data, start, stop)
    return spoilt, f"{kind}, {what}"


def regions(data: bytes, kind: str) -> Iterator[tuple[int, int]]:
    """Where in the file the parts of a kind lie."""
    _, header, described, _ = struct.unpack_from("<IIIQ", data)
    base = header + described
    if kind == "header":
        yield 0, HEADER_BYTES
    elif kind == "description":
        yield header, header + len(data[header:base].rstrip(b"\0"))
    else:
        names = ("binary_coeff",) if kind == "weights" else ("binary_bdc", "binary_gdma")
        for start, size in binaries(decode(data[header:base]), names):
            yield base + start, base + start + size


def binaries(record: Any, names: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """The ranges of raw bytes that a description names."""
    if isinstance(record, list):
        for item in record:
            yield from binaries(item, names)
    elif isinstance(record, dict):
        yield from (record[name] for name in names if record.get(name))
        for value in record.values():
            yield from binaries(value, names)
