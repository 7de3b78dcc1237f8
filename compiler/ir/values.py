"""Whether Python values are of the types that fields of ops, attributes and types declare."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any


def is_of(annotation: Any, value: Any) -> bool:
    """Whether a value is of a declared type; items of tuples and lists count, and a bool is not a number."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(is_of(each, value) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list):
        return isinstance(value, origin) and all(is_of(arguments[0], item) for item in value)
    if annotation is Any or not isinstance(annotation, type):
        return True
    return isinstance(value, annotation) and not (isinstance(value, bool) and annotation in (int, float))


def described(annotation: Any) -> str:
    """A declared type as a message names it."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(described(part) for part in parts if part is not types.NoneType)
    if typing.get_origin(annotation) in (tuple, list):
        return f"a list of {described(parts[0])}"
    return getattr(annotation, "__name__", str(annotation))


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """The declared types of a dataclass's fields."""
    return typing.get_type_hints(cls)
