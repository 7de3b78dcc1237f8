"""Python values to the text of MLIR's attributes; ``literals.py`` is the way back."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any

Write = Callable[[Any], str]  # how what a value holds is written in turn

SAFE_CHARACTERS = frozenset(chr(code) for code in range(0x20, 0x7F)) - frozenset('"\\')


def attribute_text(value: Any, write: Write | None = None) -> str:
    """Any attribute or type, given as the Python value that ops hold."""
    kind = type(value)
    if kind is int:
        return f"{value} : {'i64' if value < 1 << 63 else 'ui64'}"
    if kind is float:
        return f"{float_text(value)} : f64"
    if kind is str:
        return string_text(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is tuple:
        return array_text(value)
    write = write or attribute_text
    if kind is list:
        return f"[{', '.join([write(item) for item in value])}]"
    if kind is dict:
        return f"{{{', '.join([f'{key} = {write(item)}' for key, item in value.items()])}}}"
    if not hasattr(kind, "text"):
        raise TypeError(f"{value!r} of {kind} cannot be an attribute")
    return str(value.text(write))


def object_text(sigil: str, value: Any) -> str:
    """``#name<field = value>`` of a dataclass, without the fields that have their default."""
    body = []
    for name, as_float, default in _parameters(value.__class__):
        text = parameter_text(getattr(value, name), as_float)
        if text != default:
            body.append(f"{name} = {text}")
    return f"{sigil}{value.mnemonic}<{', '.join(body)}>" if body else f"{sigil}{value.mnemonic}"


@cache
def _parameters(cls: type[Any]) -> list[tuple[str, bool, str | None]]:
    """Of each field: its name, whether it is declared a float, and the text of its default."""
    found = []
    for f in fields(cls):
        as_float = is_float_field(f)
        default = None if f.default is MISSING else parameter_text(f.default, as_float)
        found.append((f.name, as_float, default))
    return found


def is_float_field(f: Field[Any]) -> bool:
    """Whether a field of a type or attribute is declared a float; its text may then be that of an int."""
    return f.type is float or f.type in ("float", "float | None")


def parameter_text(value: Any, as_float: bool = False) -> str:
    """A field inside ``< >``: as an attribute, but numbers carry no type, and a tuple is a list."""
    kind = type(value)
    if kind is float or (as_float and kind is int):
        number = float(value)
        return float_text(number) if math.isfinite(number) else attribute_text(number)
    if kind is int:
        return str(value)
    if kind is tuple:
        return f"[{', '.join([parameter_text(item) for item in value])}]"
    return "none" if value is None else attribute_text(value)


def list_text(texts: list[str]) -> str:
    """Result types: one stands alone, unless it is a function type and its arrow would be misread."""
    return texts[0] if len(texts) == 1 and not texts[0].startswith("(") else f"({', '.join(texts)})"


def array_text(value: tuple[Any, ...]) -> str:
    """``array<i64: 1, 2>``; of floats or of bools when all are."""
    kinds = {type(v) for v in value}
    if not kinds:
        return "array<i64>"
    if kinds == {bool}:
        return f"array<i1: {', '.join(['true' if v else 'false' for v in value])}>"
    if kinds == {int}:
        return f"array<i64: {', '.join(map(str, value))}>"
    if kinds == {float}:
        return f"array<f64: {', '.join(map(float_text, value))}>"
    raise TypeError(f"a tuple attribute holds numbers of one kind, use a list for {value!r}")


def float_text(value: float) -> str:
    """Shortest text that reads back the same, with the decimal point MLIR asks for; bits if not finite."""
    if not math.isfinite(value):
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    text = repr(value)
    if "." in text:
        return text
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}.0{exponent}{power}"


def string_text(value: str) -> str:
    """Quoted; everything but printable ASCII as the hex of its UTF-8 bytes."""
    if SAFE_CHARACTERS.issuperset(value):
        return f'"{value}"'
    parts = [c if c in SAFE_CHARACTERS else "".join(f"\\{b:02X}" for b in c.encode()) for c in value]
    return f'"{"".join(parts)}"'
