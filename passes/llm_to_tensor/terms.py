"""What a device has for the others, and what it does alone of what all did together."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.core import Value
from compiler.ir.types import F32, I32
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.context import Lowering, lowers
from passes.llm_to_tensor.sums import total
from passes.tensor.build import Build

ONE_LANE = Lanes(0)  # of an array whose first axis is 1
RAISED = 2.0**100  # lifts any f32 above 0 to 2**-49 or more, and that to more than 1


@lowers(llm.LargestOp)
def largest(low: Lowering, op: llm.LargestOp) -> tuple[Value, Value]:
    """Indices are exact in f32 below 2**24."""
    build, x = low.build, low.get(op.x)
    value = build.add(tensor.ReduceOp(x, kind="max", axis=len(x.type.shape) - 1))
    first = build.cast(build.add(tensor.ArgmaxOp(x)), F32, ONE_LANE)
    index = build.cast(build.scalar(tensor.AddOp, first, float(op.offset)), I32, ONE_LANE)
    return value, index


@lowers(llm.AddTermsOp)
def add_terms(low: Lowering, op: llm.AddTermsOp) -> Value:
    return total(low.build, [low.f32(term) for term in op.terms])


@lowers(llm.IndexOfLargestOp)
def index_of_largest(low: Lowering, op: llm.IndexOfLargestOp) -> Value:
    build = low.build
    loads = [[build.load(low.argument(x), ONE_LANE) for x in each] for each in (op.values, op.indices)]
    found = index_of(build, loads[0], [build.cast(index, F32, ONE_LANE) for index in loads[1]])
    return build.add(tensor.StoreOp(build.cast(found, I32, ONE_LANE)))


def index_of(build: Build, values: Sequence[Value], indices: Sequence[Value]) -> Value:
    """One after the other, each is the largest so far or not; indices are exact in f32."""
    best, found = values[0], indices[0]
    for value, index in zip(values[1:], indices[1:], strict=True):
        larger = is_larger(build, value, best)
        step = build.binary(tensor.MulOp, build.binary(tensor.SubOp, index, found), larger)
        found = build.binary(tensor.AddOp, found, step)
        best = build.binary(tensor.MaxOp, best, value)
    return found


def is_larger(build: Build, a: Value, b: Value) -> Value:
    """1 where a > b, else 0."""
    found = build.scalar(tensor.MaxOp, build.binary(tensor.SubOp, a, b), 0.0)
    for _ in range(2):
        found = build.scalar(tensor.MinOp, build.scalar(tensor.MulOp, found, RAISED), 1.0)
    return found
