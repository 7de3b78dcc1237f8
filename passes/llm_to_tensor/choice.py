"""The choice of a token: the largest numbers, and how likely each of them is to be drawn."""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import F32, TensorType
from dialects import llm, tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.context import Lowering, lowers
from passes.tensor.build import Build

ONE_LANE = Lanes(0)  # of an array whose first axis is 1


@lowers(llm.TopkOp)
def topk(low: Lowering, op: llm.TopkOp) -> tuple[Value, ...]:
    """In f32. Of many tokens, each on a lane; of one, the results are on every lane, but of a router's."""
    found = low.current.values.get(op.x)
    if isinstance(found, Value) and tensor.in_ddr(found.type):
        x = low.build.load(found, Lanes(len(found.type.shape) - 1, compact=True))
    else:
        x = low.f32(op.x)
    if len(x.type.shape) == 3 and tensor.is_over_lanes(x.type, 0):
        return topk_of_groups(low.build, x, op.k)
    return low.build.add_all(tensor.TopkOp(x, k=op.k))


def topk_of_groups(build: Build, x: Value, k: int) -> tuple[Value, ...]:
    """[tokens, groups, n], tokens over the lanes: one group after the other."""
    tokens, groups, width = x.type.shape
    found = []
    for group in range(groups):
        one = build.slice(x, (0, group, 0), (tokens, 1, width))
        results = build.add_all(tensor.TopkOp(build.reshape(one, (tokens, width), Lanes(0)), k=k))
        found.append([build.reshape(each, (tokens, 1, k), Lanes(0)) for each in results])
    return tuple(build.concat(parts, 1) for parts in zip(*found, strict=True))


@lowers(llm.WidenOp)
def widen(low: Lowering, op: llm.WidenOp) -> Value:
    return low.f32(op.x)


@lowers(llm.PenalizeOp)
def penalize(low: Lowering, op: llm.PenalizeOp) -> Value:
    """The logits of the ids, in a row on one lane, scaled and put in their places in a copy in DDR."""
    build, ids = low.build, low.argument(op.ids)
    table = build.reshape(low.argument(op.logits), (op.logits.type.shape[-1], 1), None)
    shape = (*ids.type.shape, 1)
    rows = build.add(tensor.GatherOp(table, ids, types=[TensorType(shape, F32, ONE_LANE)]))
    x = build.reshape(rows, ids.type.shape, ONE_LANE)
    x = select_zero(low, ids, x, scaled(low, x, everywhere(low, op.penalty)))
    y = build.add(tensor.ScatterOp(table, ids, build.reshape(x, shape, ONE_LANE)))
    return build.reshape(y, op.y.type.shape, None)


def scaled(low: Lowering, x: Value, penalty: Value) -> Value:
    """x / penalty where x > 0, else x * penalty; one of the two terms is 0."""
    build = low.build
    positive = build.scalar(tensor.MaxOp, x, 0.0)
    negative = build.binary(tensor.SubOp, x, positive)
    inverse = build.add(tensor.ReciprocalOp(penalty))
    terms = build.binary(tensor.MulOp, positive, inverse), build.binary(tensor.MulOp, negative, penalty)
    return build.binary(tensor.AddOp, *terms)


def select_zero(low: Lowering, ids: Value, zero: Value, other: Value) -> Value:
    """`zero` where the id is 0, else `other`."""
    build = low.build
    local = build.cast(build.load(ids, ONE_LANE), F32, ONE_LANE)
    less = build.scalar(tensor.AddOp, build.scalar(tensor.MulOp, local, -1.0), 1.0)
    is_zero = build.scalar(tensor.MaxOp, less, 0.0)
    is_other = build.scalar(tensor.AddOp, build.scalar(tensor.MulOp, is_zero, -1.0), 1.0)
    terms = build.binary(tensor.MulOp, zero, is_zero), build.binary(tensor.MulOp, other, is_other)
    return build.binary(tensor.AddOp, *terms)


@lowers(llm.NucleusOp)
def nucleus(low: Lowering, op: llm.NucleusOp) -> Value:
    numbers = (everywhere(low, value) for value in (op.temperature, op.top_k, op.top_p))
    return low.build.add(tensor.NucleusOp(low.f32(op.x), *numbers, least=op.least))


def everywhere(low: Lowering, value: Value) -> Value:
    """One number of the client's, in f32 on every lane: [1, 1]."""
    local = low.build.load(low.build.reshape(low.argument(value), (1, 1), None), Replicated())
    return low.build.cast(local, F32, Replicated())
