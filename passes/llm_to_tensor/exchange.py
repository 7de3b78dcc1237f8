"""Where the cores of a chip meet: terms of a sum are sent when they are there, and added where it is read.

What stands between the two is what other runs of tokens have to do, so that no core waits; see `phases`.
"""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import F32, I32
from dialects import llm, tensor
from dialects.parts import Collective, place_of
from dialects.tensor import Lanes, SentType
from passes.llm_to_tensor.context import Lowering, lowers
from passes.llm_to_tensor.sums import read_of, receive, received
from passes.llm_to_tensor.terms import ONE_LANE, index_of


@lowers(llm.AllReduceOp)
def all_reduce(low: Lowering, op: llm.AllReduceOp) -> None:
    """The first time, this core's term is sent; the second time, the terms of all are there to be added, in
    the order of the cores: the sum has the same bits on each.
    """
    run = low.current
    if op not in run.sent:
        run.sent[op] = send(low, op, low.f32(op.x))
        return
    if op not in run.received:
        run.received[op] = received(low.build, op, run.sent[op], low.is_alone(op))
    del run.sent[op]
    run.values[read_of(op)] = run.received.pop(op)


@lowers(llm.AllGatherOp)
def all_gather(low: Lowering, op: llm.AllGatherOp) -> None:
    """Each core stores its piece of a result; see `Lowering.stored`."""
    if not all(user.is_terminator for user in op.y.users):
        op.fail("that is read by other ops has no lowering to the tensor dialect")


@lowers(llm.AllReduceArgmaxOp)
def all_reduce_argmax(low: Lowering, op: llm.AllReduceArgmaxOp) -> Value:
    """Value and index go as one array [1, 2]; indices are exact in f32 below 2**24."""
    build, index = low.build, low.build.cast(low.get(op.index), F32, ONE_LANE)
    nothing = build.scalar(tensor.MulOp, index, 0.0)  # but on the one lane that the value is wanted on
    value = build.binary(tensor.AddOp, nothing, low.get(op.value), compact=False)
    pair = build.concat([value, index], 1)
    pairs = receive(build, send(low, op, pair), pair.type)
    values, indices = ([build.slice(each, (0, column), (1, 1)) for each in pairs] for column in range(2))
    return build.cast(index_of(build, values, indices), I32, ONE_LANE)


def send(low: Lowering, op: Collective, x: Value) -> Value:
    if op.over != "core":
        op.fail(f"over every {op.over} has no lowering to the tensor dialect")
    layout = x.type.layout
    if not isinstance(layout, Lanes):
        op.fail(f"sends {x.type}, which lies on no lanes")
    if tensor.is_vector(x.type):
        x = low.build.cast(x, F32, low.client_layout(layout))
    _, count = place_of(op, op.over)
    type_ = SentType(count, x.type.shape, x.type.element)
    return low.build.add(tensor.SendOp(x, over=op.over, types=[type_]))

