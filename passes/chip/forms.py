"""What instructions have in common: a program repeats few forms of them, on ever other buffers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from dialects.chip import Instruction

Found = TypeVar("Found")


def form_of(op: Instruction) -> Hashable:
    """All of an instruction but which buffers it works on: only what they are, and which of them are one."""
    buffers = op.operands
    same = [buffers.index(buffer) for buffer in buffers]
    return (op.opname, *same, *[buffer.type.__class__ for buffer in buffers], *op.attributes.items())


class PerForm(Generic[Found]):
    """A function of instructions that only depends on their form, worked out once for each."""

    def __init__(self, function: Callable[[Instruction], Found]) -> None:
        self._function = function
        self._known: dict[Hashable, Found] = {}

    def __call__(self, op: Instruction) -> Found:
        form = form_of(op)
        if form not in self._known:
            self._known[form] = self._function(op)
        return self._known[form]
