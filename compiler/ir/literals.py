"""Tokens to Python values: numbers, strings, element types, and the dataclasses of the dialects."""

from __future__ import annotations

import re
import struct
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any

from lark import Token

from compiler.ir.text import is_float_field
from compiler.ir.types import ATTRIBUTES, ELEMENTS, TYPES, ElementType
from compiler.ir.values import described, field_types, is_of

_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)")
_ESCAPED = {b"n": b"\n", b"t": b"\t"}
_BITS_FORMAT = {16: ("<H", "<e"), 32: ("<I", "<f"), 64: ("<Q", "<d")}


class TextError(Exception):
    """Text that is not IR, or that names something unknown; ``pos`` counts characters from its start."""

    def __init__(self, message: str, pos: int) -> None:
        super().__init__(message)
        self.message = message
        self.pos = pos


def unquote(text: str) -> str:
    """The string that quoted text stands for; ``\\E4`` is one byte of UTF-8."""
    if "\\" not in text:
        return str(text[1:-1])
    raw = _ESCAPE.sub(lambda m: _unescape(m.group(1)), text[1:-1].encode())
    return raw.decode(errors="replace")


def _unescape(code: bytes) -> bytes:
    return bytes([int(code, 16)]) if len(code) == 2 else _ESCAPED.get(code, code)


def element(token: Token) -> ElementType:
    if token not in ELEMENTS:
        raise TextError(f"unknown type {str(token)!r}; known: {', '.join(ELEMENTS)}", token.start_pos or 0)
    return ELEMENTS[str(token)]


def number(token: Token, kind: ElementType | None) -> int | float:
    """An int or a float; hexadecimal digits of a float type are its bits."""
    text = str(token)
    if text.startswith("0x"):
        bits = int(text, 16)
        if kind is None or not kind.is_float:
            return bits
        if kind.bits not in _BITS_FORMAT or bits >> kind.bits:
            raise TextError(f"{text} is not a number of type {kind}", token.start_pos or 0)
        return _float_of_bits(bits, kind)
    if "." in text:
        return float(text)
    if kind is not None and kind.is_float:
        raise TextError(f"a number of type {kind} needs a decimal point", token.start_pos or 0)
    return int(text)


@cache
def _float_of_bits(bits: int, kind: ElementType) -> float:
    """Remembered, so that attributes holding the same NaN are equal: Python compares them by identity."""
    if kind.name == "bf16":
        return _float_of_bits(bits << 16, ELEMENTS["f32"])
    integer, floating = _BITS_FORMAT[kind.bits]
    value: float = struct.unpack(floating, struct.pack(integer, bits))[0]
    return value


def dialect_object(name: Token, given: dict[str, Any]) -> Any:
    """``#chip.view<...>`` or ``!chip.local<...>`` as the registered dataclass."""
    table: dict[str, Any] = TYPES if name.startswith("!") else ATTRIBUTES
    pos = name.start_pos or 0
    if name[1:] not in table:
        what = "type" if name.startswith("!") else "attribute"
        raise TextError(f"unknown {what} {str(name)!r}; known: {', '.join(sorted(table)) or 'none'}", pos)
    cls = table[name[1:]]
    declared = _declared(cls)
    unknown = [key for key in given if key not in declared]
    missing = [key for key, f in declared.items() if key not in given and _required(f)]
    if unknown:
        raise TextError(f"{name} has no {unknown[0]!r}; it has {', '.join(declared)}", pos)
    if missing:
        raise TextError(f"{name} needs {', '.join(missing)}", pos)
    values = {key: _field_value(declared[key], value) for key, value in given.items()}
    for key, value in values.items():
        if not is_of(field_types(cls)[key], value):
            raise TextError(f"{key} of {name} is not {described(field_types(cls)[key])}", pos)
    return cls(**values)


@cache
def _declared(cls: Any) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(cls)}


def _required(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _field_value(f: Field[Any], value: Any) -> Any:
    if type(value) is list:
        return _frozen(value)
    if type(value) is int and is_float_field(f):
        return float(value)
    return value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
