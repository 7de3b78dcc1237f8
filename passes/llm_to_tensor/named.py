"""What is known by name (weights and tables), and the embedding."""

from __future__ import annotations

from compiler.ir.core import Value
from compiler.ir.types import UI16, TensorType
from dialects import llm, tensor
from dialects.tensor import Lanes
from dialects.weights import some_items
from passes.llm_to_tensor.context import Lowered, Lowering, Parameter, TableRows, lowers
from passes.llm_to_tensor.sections import is_given


@lowers(llm.WeightOp)
def weight(low: Lowering, op: llm.WeightOp) -> Parameter:
    return Parameter((op.name,), op.y.type.shape, op.y.type.layout)


@lowers(llm.ConcatWeightsOp)
def concat_weights(low: Lowering, op: llm.ConcatWeightsOp) -> Parameter:
    names = tuple(name for value in op.operands for name in low.parameter(value).names)
    return Parameter(names, op.y.type.shape, op.y.type.layout)


@lowers(llm.SliceWeightsOp)
def slice_weights(low: Lowering, op: llm.SliceWeightsOp) -> Parameter:
    """Columns are those of each weight, where several were joined."""
    parameter = low.parameter(op.weight)
    if len(parameter.names) > 1 and op.axis == 0:
        op.fail("of weights that were joined has no lowering to the tensor dialect")
    some = slice(op.start, op.stop, op.step)
    names = tuple(some_items(name, op.axis, some) for name in parameter.names)
    return Parameter(names, op.y.type.shape, op.y.type.layout)


@lowers(llm.TableOp)
def table(low: Lowering, op: llm.TableOp) -> Parameter:
    return Parameter((op.name,), op.y.type.shape)


@lowers(llm.IndicesOp)
def indices(low: Lowering, op: llm.IndicesOp) -> Value:
    """In local memory, where gathers read them."""
    in_ddr = tensor.IndicesOp(source=op.name, types=[TensorType(op.y.type.shape, UI16)])
    return low.build.load(low.build.add(in_ddr), Lanes(0, compact=True))


@lowers(llm.GatherRowsOp)
def gather_rows(low: Lowering, op: llm.GatherRowsOp) -> Lowered:
    if not isinstance(low.current.values.get(op.table), Parameter):
        return low.picked(op)
    return TableRows(op.table, low.parameter(op.table), low.argument(op.ids), op.streams)


@lowers(llm.EmbeddingOp)
def embedding(low: Lowering, op: llm.EmbeddingOp) -> Value:
    """Rows go from table to result, unless something is computed of them."""
    rows = TableRows(op.table, low.parameter(op.table), low.argument(op.ids))
    if op.scale == 1.0 and is_given(op.y):
        return low.gather(rows, None)
    x = low.wide(low.gathered(rows, op.y.type.shape))
    return x if op.scale == 1.0 else low.build.scalar(tensor.MulOp, x, op.scale)
