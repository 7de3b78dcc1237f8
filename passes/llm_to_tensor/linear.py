"""Products with weights, and the choice among their results."""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import F32, TensorType
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.context import Lowering, lowers


@lowers(llm.LinearOp)
def linear(low: Lowering, op: llm.LinearOp) -> Value:
    x, element = low.half(op.x), op.x.type.element
    low.check_tokens(op.x, len(op.x.type.shape) - 2)
    w = low.weight(op.weight, element)
    start = None
    if op.residual is not None:
        start = low.accumulator(op.residual)
        if op.bias is not None:
            start = low.build.binary(tensor.AddOp, start, low.row(op.bias, start), compact=False)
    type_ = TensorType((*x.type.shape[:-1], w.type.shape[0]), F32, Lanes(x.type.layout.axis))
    y = low.build.add(tensor.LinearOp(x, w, start, types=[type_]))
    if op.bias is not None and start is None:
        y = low.build.binary(tensor.AddOp, y, low.row(op.bias, y))
    return y


@lowers(llm.GatedLinearOp)
def gated_linear(low: Lowering, op: llm.GatedLinearOp) -> Value:
    if op.act != "silu":
        op.fail(f"activation {op.act!r} has no lowering to the tensor dialect")
    if (op.gate_bias is None) != (op.up_bias is None):
        op.fail("with a bias on one of its two products has no lowering to the tensor dialect")
    x, element = low.half(op.x), op.x.type.element
    gate, up = low.weight(op.gate_weight, element), low.weight(op.up_weight, element)
    type_ = TensorType((*x.type.shape[:-1], gate.type.shape[0]), element, Lanes(x.type.layout.axis))
    row = (*(1 for _ in type_.shape[:-1]), type_.shape[-1])
    biases = [
        low.build.reshape(low.weight(bias, F32), row, None) for bias in (op.gate_bias, op.up_bias) if bias
    ]
    return low.build.add(tensor.GatedLinearOp(x, gate, up, biases, types=[type_]))


@lowers(llm.ArgmaxOp)
def argmax(low: Lowering, op: llm.ArgmaxOp) -> Value:
    return low.build.add(tensor.StoreOp(low.build.add(tensor.ArgmaxOp(low.get(op.x)))))
