"""What was emitted for some arrays, to be emitted again for others that lie alike, on their own buffers.

A program has few forms of products, gates and the like, each of them thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign
from typing import Any, NamedTuple

from compiler.ir.core import Op, Value
from compiler.ir.types import Type
from dialects.chip import Instruction, LocalOp
from passes.tensor_to_chip.placed import Placed

Given = Sequence[Placed | float | None]


class Step(NamedTuple):
    """An op, by the numbers of the buffers that it takes."""

    op_class: type[Op]
    operands: tuple[int, ...]
    types: tuple[Type, ...]
    attributes: Mapping[str, Any]
    segments: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """The ops, and what they make: a buffer by its number, seen as `made` is.

    Buffers are numbered: those of the arrays that were given, then those that the ops make.
    """

    steps: tuple[Step, ...]
    buffer: int
    made: Placed

    def follow(self, add: Callable[[Op], Op], given: Sequence[Value]) -> Placed:
        buffers = list(given)
        for op_class, operands, types, attributes, segments in self.steps:
            op = op_class.build([buffers[i] for i in operands], types, attributes, (), segments)
            buffers += add(op).results
        return self.made.in_buffer(buffers[self.buffer])


def recipe_of(ops: Sequence[Op], given: Sequence[Value], made: Placed) -> Recipe:
    """Of ops that work on nothing but the given buffers and their own."""
    numbers = {value: number for number, value in enumerate(given)}
    steps = []
    for op in ops:
        assert isinstance(op, LocalOp | Instruction), f"{op.opname} is not to be repeated"
        operands = tuple(numbers[value] for value in op.operands)
        types = tuple(value.type for value in op.results)
        steps.append(Step(type(op), operands, types, op.attributes, op.segments))
        numbers |= {value: len(numbers) for value in op.results}
    return Recipe(tuple(steps), numbers[made.buffer], made)


def buffers_of(arrays: Given) -> list[Value]:
    """Each buffer once, in order of first use."""
    return list(dict.fromkeys(x.buffer for x in arrays if isinstance(x, Placed)))


def pattern_of(arrays: Given) -> Hashable:
    """How arrays lie, and which of them in one buffer; numbers by their bits, of which 0 has two."""
    numbers: dict[Value, int] = {}
    found: list[Hashable] = []
    for x in arrays:
        if isinstance(x, Placed):
            buffer = x.buffer
            number = numbers.setdefault(buffer, len(numbers))
            where = (number, buffer.type.__class__, x.dtype.name, x.axis, x.lanes, x.offset, x.lane)
            found.append((x.shape, x.strides, where))
        else:
            found.append(x if x is None else (x, copysign(1, x)))
    return tuple(found)
