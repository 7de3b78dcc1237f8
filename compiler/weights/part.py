"""Names of parts of parameters that hold one matrix, or vector, for each expert of a mixture.

Published checkpoints have a key for each expert, models one parameter [experts, ...], and programs want the
matrices by themselves, rows being outputs: what lies between is said by the name.

    p[3]            expert 3 of the parameter p: a matrix, or a vector of biases
    p[3].T          the same with its two axes exchanged
    p[3].T[0:64:2]  rows 0, 2, ... 62 of that; of a vector, those of its items
    p[*][0:64]      rows 0 to 63 of every expert, stacked
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from compiler.weights.order import weight_and_order
from compiler.weights.stored import Array

EVERY = "[*]"
_NAME = re.compile(r"(?P<parameter>.+?)\[(?P<expert>\d+|\*)\](?P<transposed>\.T)?(\[(?P<rows>[\d:]+)\])?")


@dataclass(frozen=True)
class Part:
    """What the name of a part says."""

    parameter: str
    expert: int | None = None  # None for every one
    transposed: bool = False
    rows: tuple[int, int, int] | None = None  # start, stop and step; None for all

    def __str__(self) -> str:
        expert = EVERY if self.expert is None else f"[{self.expert}]"
        rows = "" if self.rows is None else f"[{':'.join(map(str, self.rows))}]"
        return f"{self.parameter}{expert}{'.T' if self.transposed else ''}{rows}"

    @property
    def experts(self) -> slice:
        """Which of them, along the first axis of the parameter."""
        return slice(None) if self.expert is None else slice(self.expert, self.expert + 1)

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """That of the part, of a parameter of shape `whole`."""
        experts, *sizes = whole
        if self.transposed:
            sizes.reverse()
        if self.rows is not None:
            sizes[0] = len(range(*self.rows))
        return (*(() if self.expert is not None else (experts,)), *sizes)

    def of(self, chosen: Array) -> Array:
        """The part, a view, of what `experts` choose of the parameter."""
        found = chosen.swapaxes(1, 2) if self.transposed else chosen
        if self.rows is not None:
            found = found[:, slice(*self.rows)]
        return found if self.expert is None else found[0]


def part_of(name: str) -> Part | None:
    """What a name says if it is one of a part; None of a parameter's own."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    expert, rows = found["expert"], found["rows"]
    start, stop, step = map(int, rows.split(":")) if rows else (0, 0, 1)
    return Part(
        found["parameter"],
        None if expert == "*" else int(expert),
        found["transposed"] is not None,
        (start, stop, step) if rows else None,
    )


def parameter_of(name: str) -> str:
    """The parameter that a name says rows in another order of, or a part."""
    weight, _ = weight_and_order(name)
    part = part_of(weight)
    return weight if part is None else part.parameter


def of_expert(name: str, expert: int | None) -> str:
    """The name of one expert's part, or every one's, by that of the parameter or of every expert's."""
    return str(replace(part_of(name) or Part(name), expert=expert))
