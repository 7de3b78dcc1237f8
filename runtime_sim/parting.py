"""Where two runs of a model part, across levels of the IR or within one.

An op of one level rarely has a counterpart on the next, but both know the place in the model that they come
from. A `Trace` keeps the last array made at each place; traces are compared place by place. Two runs of one
program are compared op by op.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from compiler.ir.core import Op
from compiler.ir.location import UNKNOWN
from compiler.ir.types import TensorType
from runtime_sim.compare import Difference, compare

Array = np.ndarray


@dataclass(frozen=True)
class Parting:
    """Two arrays for one place (or one op), and how far they are apart."""

    place: str
    difference: Difference

    def __str__(self) -> str:
        return f"{self.place}: {self.difference}"


@dataclass
class Trace:
    """An observer for `rules.interpret`: the last float array of each place, in the order of the run."""

    arrays: dict[str, Array] = field(default_factory=dict)

    def __call__(self, op: Op, results: Sequence[Array]) -> None:
        if op.loc == UNKNOWN or not op.operands:  # named data, not something computed
            return
        for value, array in zip(op.results, results, strict=True):
            if isinstance(value.type, TensorType) and value.type.element.is_float:
                self.arrays[str(op.loc)] = array


def partings(reference: Trace, actual: Trace) -> Iterator[Parting]:
    """Every place where both made equally many numbers; arrays of other shapes are compared row-major."""
    for place, array in reference.arrays.items():
        other = actual.arrays.get(place)
        if other is not None and other.size == array.size:
            yield Parting(place, compare(other.reshape(array.shape), array))


def first_parting(reference: Trace, actual: Trace, cosine: float) -> Parting | None:
    """The first place where the cosine is below a bound (or not a number)."""
    return next((p for p in partings(reference, actual) if not p.difference.cosine >= cosine), None)


@dataclass
class Log:
    """An observer for `chip.run_function`: what each instruction wrote, in order."""

    entries: list[tuple[Op, Array]] = field(default_factory=list)

    def __call__(self, op: Op, array: Array) -> None:
        self.entries.append((op, array))


def first_unequal(reference: Log, actual: Log) -> Parting | None:
    """The first instruction that wrote other bits; both logs are of the same program."""
    pairs = zip(reference.entries, actual.entries, strict=True)
    for number, ((_, wanted), (op, found)) in enumerate(pairs, 1):
        if wanted.tobytes() != found.tobytes():
            return Parting(f"instruction {number}, {op} at {op.loc}", compare(found, wanted))
    return None
