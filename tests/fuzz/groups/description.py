"""The description of the nets in a bmodel, field by field: names, shapes, addresses, sizes, counts."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random
from typing import Any

from compiler.bmodel.flatbuffer import decode, encode
from compiler.bmodel.schema import TABLES
from tests.fuzz.case import Case
from tests.fuzz.checks import differs_in_nothing_known
from tests.fuzz.groups.bmodel import spoilt_case
from tests.fuzz.mutate import NUMBERS, short
from tests.fuzz.samples import Samples

BITS = {"u32": 32, "i32": 31, "u64": 64}
NAMES = ("", "x", "\x1b[31mred", "<!--<script>", "a\0b", "../x", "block_0", "lm_head", "input_ids", "y" * 5000, "a\nb")

Field = tuple[Any, Any, str]  # a record or list, the field's name or index, and its kind


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    return spoilt_case(rng, folder, samples, "description", spoil, differs_in_nothing_known, signed=0.1)


def spoil(rng: Random, data: bytes) -> tuple[bytes, str]:
    """The file with some fields changed; ranges of raw bytes count from the description's end, as before."""
    magic, header, described, size = struct.unpack_from("<IIIQ", data)
    record = without_defaults(decode(data[header : header + described]))
    done = [change(rng, rng.choice(fields(record, "Model"))) for _ in range(rng.choice((1, 1, 1, 2)))]
    description = encode(record)
    description += bytes(-len(description) % 4096)
    start = data[20:header]
    spoilt = struct.pack("<IIIQ", magic, header, len(description), size) + start + description
    return spoilt + data[header + described :], "; ".join(done)


def without_defaults(record: Any) -> Any:
    """A record without what the buffer left out, which cannot be encoded."""
    if isinstance(record, list):
        return [without_defaults(item) for item in record]
    if not isinstance(record, dict):
        return record
    return {key: without_defaults(value) for key, value in record.items() if value is not None}


def fields(record: Any, table: str) -> list[Field]:
    """Every field of a record and of those in it."""
    found: list[Field] = []
    for name, value in record.items():
        kind = TABLES[table][name][1]
        found.append((record, name, kind))
        inner = kind.strip("[]")
        items = list(enumerate(value)) if kind.startswith("[") else [(name, value)]
        owner = value if kind.startswith("[") else record
        if inner in TABLES:
            for _, item in items:
                found += fields(item, inner)
        elif kind.startswith("["):
            found += [(owner, index, inner) for index, _ in items]
    return found


def change(rng: Random, field: Field) -> str:
    owner, name, kind = field
    old = owner[name]
    owner[name] = other(rng, old, kind)
    return f"{name}: {short(old)} -> {short(owner[name])}"


def other(rng: Random, value: Any, kind: str) -> Any:
    if kind in BITS:
        near = rng.choice((value + 1, value - 1, value * 2, value // 2, value + 4096, value ^ (1 << rng.randrange(31))))
        return rng.choice((near, rng.choice(NUMBERS))) % 2 ** BITS[kind]
    if kind == "Binary":
        return tuple(other(rng, item, "u64") for item in value)
    if kind == "str":
        return rng.choice((value + "x", *NAMES))
    if kind == "bytes":
        return rng.choice((value[:-1], value + b"\0", b"", bytes(len(value)), rng.randbytes(len(value))))
    if kind.startswith("["):
        return rng.choice((value[:-1], value[1:], value + value, value[::-1], [], value * 50))
    return {} if kind in TABLES else rng.choice((0.0, -1.0, float("nan")))
