"""Short names for the types and attributes that repeat in a text: ``#lanes1 = #tensor.lanes<axis = 1>``.

The class of a value says what it may be called (``Attribute.alias``). Tensor types have no name of their own:
a reader wants to see the shape. Inside the ``< >`` of a dialect's object nothing is abbreviated, since other
tools do not look there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from compiler.ir.core import Op
from compiler.ir.module import walk
from compiler.ir.text import attribute_text
from compiler.ir.types import Attribute


class Aliases:
    """The names for one text. A value has one where the text gets shorter by it, its definition included."""

    def __init__(self, root: Op) -> None:
        self.names: dict[str, str] = {}  # the text of a value to its name
        taken: set[str] = set()
        for text, (word, uses) in _repeated(root).items():
            name = _unique(text[0] + re.sub(r"[^A-Za-z0-9_]", "_", word), taken)
            if uses * (len(text) - len(name)) > len(_definition(name, text)):
                self.names[text] = name
                taken.add(name)

    def definitions(self) -> list[str]:
        """The lines that define them, in the order of their first use."""
        return [_definition(name, text) for text, name in self.names.items()]


def _definition(name: str, text: str) -> str:
    return f"{name} = {text}"


def _unique(name: str, taken: set[str]) -> str:
    """The name, numbered where another value has it."""
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _repeated(root: Op) -> dict[str, tuple[str, int]]:
    """Of each value that may have a name, by its text: the word for it, and how often it is written."""
    found: dict[str, tuple[str, int]] = {}
    for value, times in _occurrences(root):

        def note(inner: Any, times: int = times) -> str:
            text = attribute_text(inner, note)
            word = inner.alias() if isinstance(inner, Attribute) else None
            if word is not None:
                found[text] = word, found.get(text, (word, 0))[1] + times
            return text

        note(value)
    return found


def _occurrences(root: Op) -> Iterator[tuple[Any, int]]:
    """Each type and attribute of the IR and how often it stands there, told apart by identity."""
    counted: dict[int, list[Any]] = {}
    for value in _written(root):
        counted.setdefault(id(value), [value, 0])[1] += 1
    for value, times in counted.values():
        if isinstance(value, Attribute | list | dict):
            yield value, times


def _written(root: Op) -> Iterator[Any]:
    for op in walk(root):
        yield from op.attributes.values()
        yield from (value.type for value in op.operands)
        yield from (value.type for value in op.results)
        for region in op.regions:
            yield from (arg.type for arg in region.block.args)
