"""Whether Python values are of the types that fields of ops, attributes and types declare."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

from compiler.ir.types import Type


def is_of(annotation: Any, value: Any) -> bool:
    """Whether a value is of a declared type; items of tuples and lists count, and a bool is not a number."""
    return test_of(annotation)(value)


@cache
def test_of(annotation: Any) -> Callable[[Any], bool]:
    """`is_of` for one declared type, taken apart once: it is asked of each attribute after each pass."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _test_of_union(arguments)
    if origin is typing.Literal:
        return lambda value: value in arguments
    if origin in (tuple, list):
        item = test_of(arguments[0])
        return lambda value: isinstance(value, origin) and all(map(item, value))
    if annotation is Any or not isinstance(annotation, type):
        return lambda value: True
    if annotation in (int, float):
        return lambda value: type(value) is annotation or (
            isinstance(value, annotation) and not isinstance(value, bool)
        )
    return lambda value: isinstance(value, annotation)


def _test_of_union(members: tuple[Any, ...]) -> Callable[[Any], bool]:
    """Members that are plain classes are one test together."""
    plain = tuple(each for each in members if isinstance(each, type) and each not in (int, float))
    tests = [test_of(each) for each in members if each not in plain]
    if not tests:
        return lambda value: isinstance(value, plain)
    return lambda value: isinstance(value, plain) or any(test(value) for test in tests)


def type_classes(annotation: Any) -> tuple[type, ...]:
    """The classes that a value's type may have where ``Value[A | B]`` or any number of it is declared."""
    arguments = typing.get_args(annotation)
    if arguments:
        return tuple(each for argument in arguments for each in type_classes(argument))
    return (annotation,) if isinstance(annotation, type) and issubclass(annotation, Type) else ()


def described(annotation: Any) -> str:
    """A declared type as a message names it."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(described(part) for part in parts if part is not types.NoneType)
    if typing.get_origin(annotation) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    if typing.get_origin(annotation) in (tuple, list):
        return f"a list of {described(parts[0])}"
    return getattr(annotation, "__name__", str(annotation))


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """The declared types of a dataclass's fields."""
    return typing.get_type_hints(cls)
