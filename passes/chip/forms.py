"""What instructions have in common: a program repeats few forms of them, on ever other buffers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar

from compiler.target.spec import ChipSpec
from dialects.chip import Instruction

Found = TypeVar("Found")
Function: TypeAlias = Callable[[Instruction, ChipSpec], Found]

REMEMBERED = 1 << 14  # forms, from program to program: those of one model, and of its trials, are much alike


def form_of(op: Instruction) -> Hashable:
    """All of an instruction but which buffers it works on: only what they are, and which of them are one."""
    return (op.opname, *_pattern(op), *op.shared_attributes.items())


def _pattern(op: Instruction) -> tuple[tuple[int, ...], tuple[type, ...]]:
    buffers = op.operands
    return tuple(map(buffers.index, buffers)), tuple([buffer.type.__class__ for buffer in buffers])


class PerForm(Generic[Found]):
    """A function of instructions that only depends on their form, worked out once for each.

    Most instructions of a form share their attributes as one object, which is told faster than what it holds.
    """

    def __init__(self, function: Function[Found], spec: ChipSpec) -> None:
        self._function = function
        self._spec = spec
        self._by_form: dict[Hashable, Found] = remembered(function, spec)
        self._by_object: dict[Hashable, tuple[Found, Mapping[str, Any]]] = {}  # with it, so that it lives on

    def __call__(self, op: Instruction) -> Found:
        shared, buffers = op.shared_attributes, op._operands
        key = id(shared), *map(buffers.index, buffers), *[buffer.type.__class__ for buffer in buffers]
        known = self._by_object.get(key)
        if known is None:
            known = self._by_object[key] = self._of_form(op), shared
        return known[0]

    def _of_form(self, op: Instruction) -> Found:
        form = form_of(op)
        if form not in self._by_form:
            if len(self._by_form) == REMEMBERED:
                self._by_form.clear()
            self._by_form[form] = self._function(op, self._spec)
        return self._by_form[form]


@cache
def remembered(function: Function[Any], spec: ChipSpec) -> dict[Hashable, Any]:
    """What was worked out before, by the form."""
    return {}
