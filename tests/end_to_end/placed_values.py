"""Each value of a tensor function, beside what its chip program leaves in the value's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import Attribute, TensorType
from compiler.target.spec import ChipSpec
from driver.bisect.chip import accumulators, read
from passes.tensor_to_chip.lower import lower_function
from runtime_sim.interpret.chip import ChipProgram

Array = np.ndarray


@dataclass(frozen=True)
class Pair:
    """A value on both levels: what its op is, and the arrays."""

    what: str
    wanted: Array
    found: Array


@dataclass
class Recorder:
    """An observer for `rules.interpret` that keeps every value, and how its op reads."""

    arrays: dict[Value, Array]
    texts: dict[Value, str]

    def __call__(self, op: Op, results: Sequence[Array]) -> None:
        for value, array in zip(op.results, results, strict=True):
            self.arrays[value] = array
            self.texts[value] = f"{op} at {op.loc}"


def place_values(
    function: Function,
    spec: ChipSpec,
    run: Callable[[Recorder], Sequence[Array]],
    inputs: Sequence[Array],
    weights: Callable[[Attribute], Array],
) -> Iterator[Pair]:
    """Lower a tensor function in place and run both; every value that still lies where it was put.

    `run` interprets the function with an observer.
    """
    recorder = Recorder({}, {})
    run(recorder)
    lost = set(accumulators(function))
    low = lower_function(function, spec)
    program = ChipProgram(function, spec, weights)
    program.run(inputs)
    for value, array in recorder.arrays.items():
        if value not in lost and value in low.placed and isinstance(value.type, TensorType):
            place = low.placed[value]
            yield Pair(recorder.texts[value], array, read(program, place, place.buffer))
