"""Each value of a tensor function, beside what its chip program leaves in the value's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import Attribute, TensorType
from compiler.target.spec import ChipSpec
from dialects import tensor
from dialects.chip import LocalType
from passes.tensor_to_chip.lower import lower_function
from passes.tensor_to_chip.placed import Placed
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


def overwritten(function: Function) -> set[Value]:
    """Accumulators, whose place holds the sum at the end."""
    return {
        op.accumulator
        for op in function.block.ops
        if isinstance(op, tensor.LinearOp | tensor.MatmulOp) and op.accumulator is not None
    }


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
    lost = overwritten(function)
    low = lower_function(function, spec)
    program = ChipProgram(function, spec, weights)
    program.run(inputs)
    for value, array in recorder.arrays.items():
        if value not in lost and value in low.placed and isinstance(value.type, TensorType):
            yield Pair(recorder.texts[value], array, read(program, low.placed[value]))


def read(program: ChipProgram, place: Placed) -> Array:
    """The array in a place: item by item over the lanes, or from any lane where all hold the same."""
    local = isinstance(place.buffer.type, LocalType)
    memory = program.machine.local.bytes if local else program.regions[place.buffer]
    start = program.placement.address(place.buffer) if local else 0
    offsets = np.full(place.shape, start + place.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(place.shape, place.strides, strict=True)):
        index = np.arange(size)
        step = index * stride
        if local and axis == place.axis:
            slot, lane = np.divmod(place.lane + index, place.lanes)
            step = slot * stride + lane * (program.machine.local.lane_bytes // place.dtype.bytes)
        shape = [1] * len(place.shape)
        shape[axis] = size
        offsets += (step * place.dtype.bytes).reshape(shape)
    return items_at(memory, offsets, place.dtype.numpy)


def items_at(memory: Array, offsets: Array, dtype: np.dtype) -> Array:
    every_byte = offsets[..., None] + np.arange(dtype.itemsize)
    return np.ascontiguousarray(memory[every_byte]).view(dtype)[..., 0]
