"""Seeded ways to spoil JSON, bytes and text. Each returns the spoilt thing and a few words on what it did."""

from __future__ import annotations

import copy
import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

NUMBERS = (0, -1, 1, 2, 3, 7, 31, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**9, 10**18)
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf)
STRINGS = (
    "", " ", "x", "0", "null", "../../x", "/etc/hostname", "a\0b", "line\nbreak", "\x1b[31mred\x1b[0m",
    "\u202eright to left", "\ud800", "e\u0301\U0001f600", "<!--<script>", "%s%n{}{0}", "y" * 5000,
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], [None], {"": ""}, {"a": {"b": []}})

# What no Python value prints as. The first is the value a lenient reader takes for infinity, the second is
# longer than int() reads, the third nests deeper than recursion goes.
RAW = ("1e999", "9" * 5000, "[" * 100_000 + "]" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "0x10", "'x'")
TEXT_BITS = ("\0", "\x1b[2J", "\ufeff", "\u202e", "(" * 5000, "9" * 5000, "-", '"', "\\", "\r\n", "{", "}", "%")


def nasty(rng: Random) -> Any:
    """A value that few readers expect."""
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, FLOATS, STRINGS, OTHERS))))


def short(value: Any, limit: int = 60) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\x1b", "\\x1b")
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# ---- JSON ----

Place = tuple[Any, Any]  # a dict and one of its keys, or a list and an index


def places(value: Any) -> list[Place]:
    """Where a document holds values, outermost first."""
    found, level = [], [value]
    for container in level:
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        level += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


def some_place(rng: Random, value: Any) -> Place | None:
    """A random place; the outer ones are as likely as all the others."""
    found = places(value)
    if not found:
        return None
    outer = [place for place in found if place[0] is value]
    return rng.choice(rng.choice((outer, found)))


def spoil_json(rng: Random, value: Any, known: Mapping[str, Sequence[Any]] = {}) -> tuple[str, str]:
    """A text a few edits away from the JSON of `value`.

    `known` names keys that a reader looks at, with values worth a try, whether the document has them or not.
    """
    value = copy.deepcopy(value)
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if known and rng.random() < 0.4:
            key = rng.choice(list(known))
            value[key] = copy.deepcopy(rng.choice(known[key])) if known[key] and rng.random() < 0.6 else nasty(rng)
            done.append(f"{key} = {short(value[key])}")
        else:
            done.append(_edit(rng, value))
    text = json.dumps(value, indent=2)
    if rng.random() < 0.15:
        text, what = rng.choice((_raw_value, _key_twice, spoil_text))(rng, text)
        done.append(what)
    return text, "; ".join(done)


def _edit(rng: Random, value: Any) -> str:
    place = some_place(rng, value)
    if place is None:
        return "nothing to edit"
    container, key = place
    name, old = short(str(key)), container[key]
    edit = rng.choice(EDITS)
    container[key] = edit(rng, copy.deepcopy(old))
    if container[key] is _GONE:
        del container[key]
        return f"{name} removed"
    return f"{name}: {short(old)} -> {short(container[key])}"


_GONE = object()


def _near(rng: Random, value: Any) -> Any:
    """A value like the one there, but not it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, value * 2, value // 2, -value, value + 0.5, str(value)))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), [value], value * 2))
    if isinstance(value, list):
        return rng.choice((value + value, value[:-1], value[::-1], dict.fromkeys(map(str, value)), [*value, None]))
    return list(value.values()) if value and rng.random() < 0.5 else {"more": value}


EDITS: tuple[Callable[[Random, Any], Any], ...] = (
    lambda rng, value: nasty(rng),
    lambda rng, value: nasty(rng),
    _near,
    _near,
    lambda rng, value: _GONE,
    lambda rng, value: [value],
)


def _raw_value(rng: Random, text: str) -> tuple[str, str]:
    values = list(re.finditer(r"(?<=: )[^\s{\[][^\n]*?(?=,?\n)", text))
    if not values:
        return spoil_text(rng, text)
    place, raw = rng.choice(values), rng.choice(RAW)
    return text[: place.start()] + raw + text[place.end() :], f"raw {short(raw)} for {short(place[0])}"


def _key_twice(rng: Random, text: str) -> tuple[str, str]:
    members = list(re.finditer(r'("[^"\n]*"): ', text))
    if not members:
        return spoil_text(rng, text)
    member, other = rng.choice(members), json.dumps(nasty(rng))
    return f"{text[: member.start()]}{member[1]}: {other},\n{text[member.start() :]}", f"{member[1]} twice"


# ---- bytes ----


def spoil_bytes(rng: Random, data: bytes, start: int = 0, stop: int | None = None) -> tuple[bytes, str]:
    """One edit between two offsets."""
    stop = len(data) if stop is None else stop
    at = rng.randrange(start, stop) if stop > start else start
    end = min(stop, at + rng.choice((1, 4, 8, 64, 4096)))
    edit = rng.choice(BYTE_EDITS)
    return data[:at] + edit(rng, data[at:end]) + data[end:], f"bytes {at} to {end} {edit.__name__}"


def flipped(rng: Random, part: bytes) -> bytes:
    changed = bytearray(part or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def randomized(rng: Random, part: bytes) -> bytes:
    return rng.randbytes(len(part))


def removed(rng: Random, part: bytes) -> bytes:
    return b""


def doubled(rng: Random, part: bytes) -> bytes:
    return part + part


def zeroed(rng: Random, part: bytes) -> bytes:
    return bytes(len(part))


def filled(rng: Random, part: bytes) -> bytes:
    return b"\xff" * len(part)


def numbered(rng: Random, part: bytes) -> bytes:
    """A number where the parts of a file lie or how long they are, as an 8-byte word."""
    return struct.pack("<Q", rng.choice(NUMBERS) % 2**64)[: len(part)] + part[8:]


BYTE_EDITS = (flipped, flipped, flipped, randomized, removed, doubled, zeroed, filled, numbered)


def cut(rng: Random, data: bytes) -> tuple[bytes, str]:
    """The file ends early."""
    size = rng.choice((0, 1, 7, 8, 9, 63, 64, rng.randrange(len(data)), len(data) - 1))
    return data[:size], f"cut to {size} of {len(data)} bytes"


# ---- text ----

TOKEN = re.compile(r"\d+|\w+|\s+|[^\w\s]")


def spoil_text(rng: Random, text: str) -> tuple[str, str]:
    """One token, or one line, is other than it was."""
    if rng.random() < 0.3:
        lines = text.splitlines(keepends=True)
        edited, what = _spoil_items(rng, lines)
        return "".join(edited), f"line {what}"
    edited, what = _spoil_items(rng, TOKEN.findall(text))
    return "".join(edited), f"token {what}"


def _spoil_items(rng: Random, items: list[str]) -> tuple[list[str], str]:
    if not items:
        return [rng.choice(TEXT_BITS)], "added to nothing"
    at, other = rng.randrange(len(items)), rng.randrange(len(items))
    edit = rng.choice(TEXT_EDITS)
    changed = list(items)
    changed[at : at + 1] = edit(rng, items[at], items[other])
    return changed, f"{at}, {short(items[at].strip())}, {edit.__name__.strip('_')} -> {short(changed[at : at + 2])}"


def _dropped(rng: Random, item: str, other: str) -> list[str]:
    return []


def _repeated(rng: Random, item: str, other: str) -> list[str]:
    return [item, item]


def _replaced(rng: Random, item: str, other: str) -> list[str]:
    return [other]


def _counted(rng: Random, item: str, other: str) -> list[str]:
    """The numbers in it are others."""
    return [re.sub(r"\d+", lambda match: str(_other_number(rng, match[0])), item)]


def _other_number(rng: Random, digits: str) -> int:
    value = int(digits[:18])
    return rng.choice((value + 1, value - 1, value * 2, value // 2, rng.choice(NUMBERS)))


def _littered(rng: Random, item: str, other: str) -> list[str]:
    at = rng.randrange(len(item) + 1)
    return [item[:at] + rng.choice(TEXT_BITS) + item[at:]]


TEXT_EDITS = (_dropped, _repeated, _replaced, _counted, _counted, _littered)
