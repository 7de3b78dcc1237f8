"""Shapes that the operands and results of an op must have, as in ``x[..., K] weight[N, K] -> y[..., N]``.

A letter is one size, the same wherever it stands; a number is that size; ``_`` is any. ``...`` at the front
is any number of leading sizes, the same wherever it stands, and ``*`` any at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from compiler.ir.core import Op, Value
from compiler.ir.types import TensorType

Bound = dict[str, Any]  # a letter's size, and the sizes that "..." stands for


@dataclass(frozen=True)
class Pattern:
    """The shape of one operand or result field."""

    field: str
    lead: str  # "...", "*" or nothing
    sizes: tuple[str, ...]

    def __str__(self) -> str:
        return f"[{', '.join([self.lead] * bool(self.lead) + list(self.sizes))}]"

    def matches(self, shape: tuple[int, ...], bound: Bound) -> bool:
        lead = len(shape) - len(self.sizes)
        if lead < 0 or (lead and not self.lead):
            return False
        if self.lead == "..." and bound.setdefault("...", shape[:lead]) != shape[:lead]:
            return False
        return all(
            size == "_" or (int(size) if size.isdigit() else bound.setdefault(size, have)) == have
            for size, have in zip(self.sizes, shape[lead:], strict=True)
        )


@cache
def patterns(text: str) -> tuple[Pattern, ...]:
    found = []
    for field, inside in re.findall(r"(\w+)\[([^\]]*)\]", text):
        sizes = [size.strip() for size in inside.split(",") if size.strip()]
        lead = sizes.pop(0) if sizes[:1] in (["..."], ["*"]) else ""
        found.append(Pattern(field, lead, tuple(sizes)))
    return tuple(found)


def verify_shapes(op: Op) -> None:
    """Fail at the first operand or result that is not of the shape that its op declares."""
    bound: Bound = {}
    for pattern in patterns(op.shapes):
        for value in _values(getattr(op, pattern.field)):
            type_ = value.type
            if isinstance(type_, TensorType) and not pattern.matches(type_.shape, bound):
                sizes = ", ".join(f"{name} = {size}" for name, size in bound.items() if name != "...")
                where = f", where {sizes}" if sizes else ""
                op.fail(f"{pattern.field} is {type_}, expected {pattern}{where}")


def _values(field: Any) -> Iterator[Value]:
    """The values of a field: one, none, or several."""
    if isinstance(field, Value):
        yield field
    elif field is not None:
        yield from field
