"""The options of passes: fields of a dataclass, what is expected of each, and their text in pipelines."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field
from typing import Any

from compiler.diagnostics import UserError

SHOWN = 60  # characters of a wrong value in a message
WORDS = {int: "a whole number", float: "a number", bool: "true or false"}  # for types in messages


def option(default: Any, expected: str, holds: Callable[[Any], bool]) -> Any:
    """A field for an option whose values are limited: `expected` says to what, `holds` tells a right one."""
    return dataclasses.field(default=default, metadata={"expected": expected, "holds": holds})


def at_least(least: int, default: int) -> Any:
    """A number with a lowest value."""
    return option(default, f"a number from {least} on", lambda value: value >= least)


def check_option(pass_name: str, field: Field[Any], value: Any) -> None:
    """UserError when the value is not what the field expects."""
    if "holds" in field.metadata and not field.metadata["holds"](value):
        raise wrong_option(pass_name, field.name, option_text(value), field.metadata["expected"])


def wrong_option(pass_name: str, option: str, text: str, expected: str) -> UserError:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return UserError(f"option {option} of pass {pass_name} is {shown!r}, expected {expected}")


def parse_option(pass_name: str, option: str, hint: Any, text: str) -> Any:
    """The text as the option's declared type: a number, true or false, text, or numbers with commas."""
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


def option_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(option_text(item) for item in value)
    return "none" if value is None else str(value)


def usage(option: str, default: Any) -> str:
    """As in a pipeline, with the default where there is one."""
    return option if default is MISSING else f"{option}={option_text(default)}"
