"""The options of passes: fields of a dataclass, what is expected of each, and their text in pipelines."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass
from typing import Any, Generic, TypeVar

from compiler.diagnostics import UserError

SHOWN = 60  # characters of a wrong value in a message
WORDS = {int: "a whole number", float: "a number", bool: "true or false"}  # for types in messages

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class ByFunction(Generic[T]):
    """A value for the functions of a module, and others for some by name; as text, `256,block_cache=0`."""

    usual: T
    named: tuple[tuple[str, T], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, T]) -> ByFunction[T]:
        """What all functions have, in their order; the first one's value is the usual one."""
        usual = next(iter(values.values()))
        return cls(usual, tuple((name, value) for name, value in values.items() if value != usual))

    def __getitem__(self, function: str) -> T:
        return dict(self.named).get(function, self.usual)

    def map(self, change: Callable[[T], U]) -> ByFunction[U]:
        usual = change(self.usual)
        changed = ((name, change(value)) for name, value in self.named)
        return ByFunction(usual, tuple((name, value) for name, value in changed if value != usual))

    def __str__(self) -> str:
        return ",".join([option_text(self.usual), *(f"{name}={option_text(v)}" for name, v in self.named)])


def option(default: Any, expected: str, holds: Callable[[Any], bool]) -> Any:
    """A field for an option whose values are limited: `expected` says to what, `holds` tells a right one."""
    return dataclasses.field(default=default, metadata={"expected": expected, "holds": holds})


def at_least(least: int, default: int) -> Any:
    """A number with a lowest value."""
    return option(default, f"a number from {least} on", lambda value: value >= least)


def by_function(field: Any) -> Any:
    """The same option, with values of their own for functions: a field of type ByFunction."""
    return dataclasses.field(default=ByFunction(field.default), metadata=field.metadata)


def check_option(pass_name: str, field: Field[Any], value: Any) -> None:
    """UserError when the value is not what the field expects."""
    values = [value.usual, *dict(value.named).values()] if isinstance(value, ByFunction) else [value]
    if "holds" in field.metadata and not all(map(field.metadata["holds"], values)):
        raise wrong_option(pass_name, field.name, option_text(value), field.metadata["expected"])


def wrong_option(pass_name: str, option: str, text: str, expected: str) -> UserError:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return UserError(f"option {option} of pass {pass_name} is {shown!r}, expected {expected}")


def parse_option(pass_name: str, option: str, hint: Any, text: str) -> Any:
    """The text as the option's declared type: a number, true or false, text, numbers with commas, or numbers
    by function.
    """
    if typing.get_origin(hint) is ByFunction:
        return _parse_by_function(pass_name, option, typing.get_args(hint)[0], text)
    if typing.get_origin(hint) is types.UnionType:
        inner = [a for a in typing.get_args(hint) if a is not types.NoneType]
        return None if text == "none" else parse_option(pass_name, option, inner[0], text)
    if typing.get_origin(hint) is tuple:
        item_hint = typing.get_args(hint)[0]
        return tuple(parse_option(pass_name, option, item_hint, item) for item in text.split(",") if item)
    if hint is bool and text in ("true", "false"):
        return text == "true"
    if hint is str:
        return text
    try:
        if hint is int:
            return int(text, 0)
        if hint is float:
            return float(text)
    except ValueError:
        pass
    raise wrong_option(pass_name, option, text, WORDS.get(hint, str(hint)))


def _parse_by_function(pass_name: str, option: str, hint: Any, text: str) -> ByFunction[Any]:
    usual, *others = text.split(",")
    pairs = [other.partition("=")[::2] for other in others]
    if not all(map(all, pairs)) or len(dict(pairs)) < len(pairs):
        raise wrong_option(pass_name, option, text, "VALUE,FUNCTION=VALUE,...")
    named = tuple((name, parse_option(pass_name, option, hint, value)) for name, value in pairs)
    return ByFunction(parse_option(pass_name, option, hint, usual), named)


def option_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(option_text(item) for item in value)
    return "none" if value is None else str(value)


def usage(option: str, default: Any) -> str:
    """As in a pipeline, with the default where there is one."""
    return option if default is MISSING else f"{option}={option_text(default)}"
