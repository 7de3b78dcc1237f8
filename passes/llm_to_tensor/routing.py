"""Routers: choices of experts, and what is computed of the chosen ones.

Arrays of a router have few numbers for each token. A token's lie in its lane, also where there is only one
token, on lane 0 (`Decode.routed`), so that both kinds of call are lowered alike. Truth is 1 and falsehood 0.
"""

from __future__ import annotations

from functools import partial, reduce
from math import isfinite

from compiler.ir.core import Value
from compiler.ir.types import F32, TensorType
from dialects import llm, tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.attend import LOG2_E
from passes.llm_to_tensor.context import Lowering, lowers
from passes.tensor.build import Build

STEEP = 1e19  # times this, numbers other than 0 have a square of 1 or more, down to 1e-19
MASKED = -1e30  # in place of minus infinity: products with 0 stay 0, and all scores are above it


@lowers(llm.TakeAlongOp)
def take_along(low: Lowering, op: llm.TakeAlongOp) -> Value:
    """The sum of the numbers at the one place where the index is the place's."""
    x, build = low.f32(op.x), low.build
    last, width = len(x.type.shape) - 1, x.type.shape[-1]
    parts = [
        build.add(tensor.ReduceOp(build.binary(tensor.MulOp, x, mark), kind="sum", axis=last))
        for mark in marks(low, op.ids, width)
    ]
    return build.concat(parts, last)


@lowers(llm.MultiHotOp)
def multi_hot(low: Lowering, op: llm.MultiHotOp) -> Value:
    return total(low.build, marks(low, op.ids, op.size))


def marks(low: Lowering, ids: Value, width: int) -> list[Value]:
    """For each index of a row [.., k], f32 [.., width] with 1 at that place and 0 elsewhere."""
    build, numbers = low.build, low.f32(ids)
    numbered = places(low, len(numbers.type.shape) - 1, width)
    return [is_zero(build, build.binary(tensor.SubOp, numbered, one)) for one in columns(build, numbers)]


def places(low: Lowering, lead: int, width: int) -> Value:
    """0, 1, 2, ... below `width` in every lane, behind so many axes of 1; loaded once."""
    shape, known = (*(1 for _ in range(lead)), width), low.current.places
    if shape not in known:
        known[shape] = low.build.load(
            low.build.add(tensor.IotaOp(types=[TensorType(shape, F32)])), Replicated()
        )
    return known[shape]


def is_zero(build: Build, x: Value) -> Value:
    """1 - min(x**2, 1), of numbers that are 0 or at least 1."""
    square = build.binary(tensor.MulOp, x, x)
    return build.scalar(tensor.MaxOp, build.scalar(tensor.AddOp, negative(build, square), 1.0), 0.0)


def negative(build: Build, x: Value) -> Value:
    return build.scalar(tensor.MulOp, x, -1.0)


def total(build: Build, parts: list[Value]) -> Value:
    return reduce(partial(build.binary, tensor.AddOp), parts)


@lowers(llm.LogicalNotOp)
def logical_not(low: Lowering, op: llm.LogicalNotOp) -> Value:
    return false_where(low, op.x)


def false_where(low: Lowering, value: Value) -> Value:
    return is_zero(low.build, low.build.scalar(tensor.MulOp, low.f32(value), STEEP))


@lowers(llm.MaskedFillOp)
def masked_fill(low: Lowering, op: llm.MaskedFillOp) -> Value:
    """x * kept + (value - kept * value), whose second part is exactly 0 or the value."""
    build, kept = low.build, false_where(low, op.mask)
    value = op.value if isfinite(op.value) else MASKED
    filled = build.scalar(tensor.AddOp, build.scalar(tensor.MulOp, kept, -value), value)
    return build.binary(tensor.AddOp, build.binary(tensor.MulOp, low.f32(op.x), kept), filled)


@lowers(llm.SoftmaxOp)
def softmax(low: Lowering, op: llm.SoftmaxOp) -> Value:
    x, build = low.f32(op.x), low.build
    require_last(op, op.axis)
    highest = build.add(tensor.ReduceOp(x, kind="max", axis=op.axis))
    exponent = build.scalar(tensor.MulOp, build.binary(tensor.SubOp, x, highest), LOG2_E)
    power = build.add(tensor.Exp2Op(exponent))
    sums = build.add(tensor.ReduceOp(power, kind="sum", axis=op.axis))
    return build.binary(tensor.MulOp, power, build.add(tensor.ReciprocalOp(sums)))


@lowers(llm.ReduceSumOp)
def reduce_sum(low: Lowering, op: llm.ReduceSumOp) -> Value:
    """Of groups of numbers, which lie one behind the other in a lane, the numbers are added one by one."""
    require_last(op, op.axis)
    x = low.f32(op.x)
    if tensor.axis_over_lanes(x.type) in (op.axis - 1, op.axis):
        return low.build.add(tensor.ReduceOp(x, kind="sum", axis=op.axis))
    return total(low.build, columns(low.build, x))


def columns(build: Build, x: Value) -> list[Value]:
    """The numbers of the last axis by themselves, [.., 1] each."""
    *lead, count = x.type.shape
    return [build.slice(x, (*(0 for _ in lead), j), (*lead, 1)) for j in range(count)]


def require_last(op: llm.SoftmaxOp | llm.ReduceSumOp, axis: int) -> None:
    if axis != len(op.x.type.shape) - 1:
        op.fail(f"over axis {axis} of {op.x.type}, not the last, has no lowering to the tensor dialect")


@lowers(llm.ExpertsOp)
def experts(low: Lowering, op: llm.ExpertsOp) -> Value:
    """All experts, of which each token takes a share of 0 but of those that it chose."""
    x, build, element = low.half(op.x), low.build, op.x.type.element
    ids = low.chosen(op)
    shares = low.f32(op.weights) if ids is not None else shares_of_all(low, op)
    stacks = [low.weight(stack, element) if stack else None for stack in (op.gate, op.up, op.down)]
    biases = [low.weight(bias, F32) if bias else None for bias in (op.gate_bias, op.up_bias)]
    type_ = TensorType(x.type.shape, F32, x.type.layout)
    start = None
    if op.down_bias is not None:
        every = shares_of_all(low, op) if ids is not None else shares
        start = low.beside(mixed_biases(low, every, op), x)
    return build.add(
        tensor.ExpertsOp(
            x,
            low.shares(shares),
            *stacks,
            *biases,
            start,
            ids,
            act=op.act,
            limit=op.limit,
            offset=op.offset,
            types=[type_],
        )
    )


def mixed_biases(low: Lowering, shares: Value, op: llm.ExpertsOp) -> Value:
    """Each token's sum of the experts' biases, by its shares: a product of two matrices."""
    build, element = low.build, op.x.type.element
    assert op.down_bias is not None
    biases = build.load(low.weight(op.down_bias, element), Lanes(0))
    left = build.cast(shares, element, shares.type.layout)
    type_ = TensorType((*shares.type.shape[:-1], biases.type.shape[1]), F32, shares.type.layout)
    return build.add(tensor.MatmulOp(left, biases, types=[type_]))


def shares_of_all(low: Lowering, op: llm.ExpertsOp) -> Value:
    """[.., experts]: each token's weight of an expert, 0 of those that it did not choose."""
    build = low.build
    pairs = zip(marks(low, op.ids, op.up.type.shape[0]), columns(build, low.f32(op.weights)), strict=True)
    return total(build, [build.binary(tensor.MulOp, mark, weight) for mark, weight in pairs])
