"""Products with weights, and the choice among their results."""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import F32, TensorType
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.context import Lowering, lowers
from passes.llm_to_tensor.elementwise import function
from passes.llm_to_tensor.sections import is_rounded
from passes.tensor.columns import column_parts
from passes.tensor.formulas import ACTIVATIONS


@lowers(llm.LinearOp)
def linear(low: Lowering, op: llm.LinearOp) -> Value | None:
    if activation_of(low, op) is not None:
        return None  # see `act_linear`
    x, element = low.half(op.x), op.x.type.element
    low.check_tokens(op.x, len(op.x.type.shape) - 2)
    w = low.weight(op.weight, element)
    if op.residual is None:
        y = product(low, x, w, op.bias)
        is_half = low.has_many_tokens and not op.partial and is_rounded(op.y)
        return low.build.cast(y, element, y.type.layout) if is_half else y
    start = low.accumulator(op.residual)
    if op.bias is not None:
        start = low.build.binary(tensor.AddOp, start, low.row(op.bias, start), compact=False)
    return low.build.add(tensor.LinearOp(x, w, start, types=[start.type]))


def activation_of(low: Lowering, op: llm.LinearOp) -> llm.ActOp | None:
    """The activation that alone reads the products, and is computed of each tile of them: they are many."""
    act = op.y.users[0] if op.y.has_one_use() and op.residual is None else None
    if not isinstance(act, llm.ActOp) or op.partial or not low.has_many_tokens:
        return None
    return act if llm.is_read_rounded(act.y) else None


@lowers(llm.ActOp)
def act(low: Lowering, op: llm.ActOp) -> Value | None:
    products = op.x.defining(llm.LinearOp)
    if products is None or activation_of(low, products) is None:
        return function(low, op)
    return act_linear(low, products, op)


def act_linear(low: Lowering, op: llm.LinearOp, act: llm.ActOp) -> Value:
    x, element = low.half(op.x), op.x.type.element
    low.check_tokens(op.x, len(op.x.type.shape) - 2)
    w = low.weight(op.weight, element)
    type_ = TensorType((*x.type.shape[:-1], w.type.shape[0]), element, Lanes(x.type.layout.axis))
    row = (*(1 for _ in type_.shape[:-1]), type_.shape[-1])
    bias = None if op.bias is None else low.build.reshape(low.weight(op.bias, F32), row, None)
    return low.build.add(tensor.ActLinearOp(x, w, bias, act=act.kind, types=[type_]))


@lowers(llm.GatedLinearOp)
def gated_linear(low: Lowering, op: llm.GatedLinearOp) -> Value:
    x, element = low.half(op.x), op.x.type.element
    gate, up = low.weight(op.gate_weight, element), low.weight(op.up_weight, element)
    if (op.gate_bias is None) != (op.up_bias is None):
        return gated(low, op, product(low, x, gate, op.gate_bias), product(low, x, up, op.up_bias))
    type_ = TensorType((*x.type.shape[:-1], gate.type.shape[0]), element, Lanes(x.type.layout.axis))
    row = (*(1 for _ in type_.shape[:-1]), type_.shape[-1])
    biases = [
        low.build.reshape(low.weight(bias, F32), row, None) for bias in (op.gate_bias, op.up_bias) if bias
    ]
    return low.build.add(tensor.GatedLinearOp(x, gate, up, biases, act=op.act, types=[type_]))


def product(low: Lowering, x: Value, w: Value, bias: Value | None) -> Value:
    """x @ w.T + bias in f32."""
    type_ = TensorType((*x.type.shape[:-1], w.type.shape[0]), F32, Lanes(x.type.layout.axis))
    y = low.build.add(tensor.LinearOp(x, w, types=[type_]))
    return y if bias is None else low.build.binary(tensor.AddOp, y, low.row(bias, y))


@lowers(llm.SwigluOp)
def swiglu(low: Lowering, op: llm.SwigluOp) -> Value:
    return gated(low, op, low.f32(op.gate), low.f32(op.up))


def gated(low: Lowering, op: llm.GatedLinearOp | llm.SwigluOp, gate: Value, up: Value) -> Value:
    """act(gate) * up, some columns at a time."""
    pairs = zip(column_parts(low.build, gate), column_parts(low.build, up), strict=True)
    parts = [
        low.kept(low.build.binary(tensor.MulOp, ACTIVATIONS[op.act](low.build, a), b), op.y) for a, b in pairs
    ]
    return low.build.concat(parts, len(gate.type.shape) - 1)


@lowers(llm.ArgmaxOp)
def argmax(low: Lowering, op: llm.ArgmaxOp) -> Value:
    return low.build.add(tensor.StoreOp(low.build.add(tensor.ArgmaxOp(low.get(op.x)))))
