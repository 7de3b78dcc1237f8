"""Files with something changed in their description or their instructions, and every command tried on them."""

from __future__ import annotations

import contextlib
import copy
import io
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bmodel_tool
from compiler.bmodel.flatbuffer import Record, decode, encode
from compiler.bmodel.schema import TABLES

NUMBERS = (0, 1, 2, 3, 7, 64, 255, 4096, 65536, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 60, (1 << 64) - 1)
NAMES = (
    "",
    "x",
    "block_0",
    "block_cache_0",
    "embedding",
    "lm_head",
    "a\x1b[2J",
    "two\nlines",
    "<!--<script>",
    "\u202e",
)
UNREAD = {  # by us; half of all changes would be to these
    *("type", "time", "sub_net", "location", "check_code", "core_num", "neuron_size", "device_num", "index"),
    *("gmem_stmode", "mem_type", "scale", "hidden", "bmodel_type", "cascade", "version"),
}
LIMITS = {"u32": 32, "u64": 64, "i32": 31}


@dataclass(frozen=True)
class Mutant:
    what: str
    data: bytes


def mutants(good: bytes, seed: int, count: int) -> Iterator[Mutant]:
    """Files without a digest, so that whatever guards after it is what meets them."""
    rng = random.Random(seed)
    end = 64 + struct.unpack_from("<I", good, 8)[0]
    record = pruned(decode(good[64:end]))
    for _ in range(count):
        if rng.random() < 0.25:
            yield flipped(good, end, record, rng)
        else:
            changed = copy.deepcopy(record)
            what = "; ".join(mutate(changed, "Model", rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))
            yield Mutant(what, file_of(changed, good[end:]))


def pruned(record: Any) -> Any:
    """A decoded record without the fields that were absent."""
    if isinstance(record, list):
        return [pruned(item) for item in record]
    if isinstance(record, dict):
        return {name: pruned(value) for name, value in record.items() if value is not None}
    return record


def file_of(record: Record, section: bytes) -> bytes:
    flatbuffer = encode(record)
    return (
        struct.pack("<IIIQ", 0xFF55AAEE, 64, len(flatbuffer), len(section)).ljust(64, b"\0")
        + flatbuffer
        + section
    )


def flipped(good: bytes, end: int, record: Record, rng: random.Random) -> Mutant:
    """A few bits of one instruction stream."""
    groups = [g for net in record["net"] for stage in net["parameter"] for g in stage["cmd_group"]]
    start, size = rng.choice(groups)[rng.choice(("binary_bdc", "binary_gdma"))]
    data = bytearray(good)
    data[32:64] = bytes(32)
    places = [end + start + rng.randrange(max(1, size)) for _ in range(rng.choice((1, 1, 2, 8)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    return Mutant(f"bits at {places}", bytes(data))


def mutate(record: Record, table: str, rng: random.Random, path: str = "") -> str:
    """Change one field somewhere below, and say which."""
    names = [name for name in record if name not in UNREAD]
    name = rng.choice(names if rng.random() < 0.95 else list(record))
    kind, value, path = TABLES[table][name][1], record[name], f"{path}.{name}"
    inner = kind.strip("[]")
    if inner in TABLES and value and rng.random() < 0.85:
        child = rng.choice(value) if isinstance(value, list) else value
        return mutate(child, inner, rng, path)
    if isinstance(value, list):
        record[name] = changed_list(value, inner, rng)
    elif kind == "Binary":
        record[name] = (rng.choice((value[0], *NUMBERS)), rng.choice((value[1], *NUMBERS)))
    elif kind in LIMITS:
        record[name] = rng.choice((*NUMBERS, value + 1, value * 2, value // 2)) % (1 << LIMITS[kind])
    elif kind in ("str", "bytes"):
        record[name] = rng.choice(NAMES) if kind == "str" else bytes(rng.randrange(40))
    else:
        del record[name]
    return f"{path} = {str(record.get(name))[:60]}"


def changed_list(values: list[Any], kind: str, rng: random.Random) -> list[Any]:
    choice = rng.randrange(4)
    if choice == 0:
        return values[:-1]
    if choice == 1:
        return values + values[-1:]
    if choice == 2 and len(values) > 1:
        return values[::-1]
    number = rng.choice(NUMBERS) % (1 << LIMITS.get(kind, 32))
    return [number if kind in LIMITS and rng.random() < 0.5 else value for value in values]


def commands(file: Path, good: Path, inputs: Path, out: Path) -> list[list[str]]:
    """All that need no reference; `run` and `disasm` of a net that most mutants have."""
    net = "block_0"
    return [
        ["info", str(file)],
        ["info", str(file), "--json"],
        ["check", str(file)],
        ["disasm", str(file), net],
        ["timing", str(file), "--html", str(out / "t.html")],
        ["diff", str(file), str(good)],
        ["run", str(file), net, "--input", str(inputs), "--output", str(out / "y.npz")],
        ["chat", str(file), "--prompt", "35", "--max-tokens", "3"],
    ]


def outcome(arguments: list[str]) -> str:
    """ "right", "clean error", or what is wrong with how the command ended."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = bmodel_tool.main(arguments)
    except Exception as error:
        return f"{type(error).__name__} {error}"
    if code == 0 or (code == 1 and out.getvalue()):
        return "right"
    told = err.getvalue()
    if code not in (1, 2) or not told or told.count("\n") > 3 or len(told) > 1500:
        return f"exit {code} with {told[:500]!r}"
    return "clean error"
