"""Handlers of what towers begin and end with: patches as rows of a product, and rows in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from compiler.ir.core import Value
from compiler.ir.types import TensorType
from dialects import llm
from dialects.weights import as_matrix
from frontend.aten import Emitter, Unsupported, handles, require


@dataclass(frozen=True)
class RowOrder:
    """An order of rows that a client writes them in already: taking rows in it changes nothing.

    `reverse` are the numbers that undo it, [rows] i32, which the client gives.
    """

    reverse: Value


@handles("aten.convolution")
def convolution(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """Of patches side by side, input [B, C, n1 * k1, ...] and weight [N, C, k1, ...]: a linear of rows that
    have the numbers of a patch in the order of the kernel.
    """
    batch, channels, *sizes = input.type.shape
    outputs, inputs, *kernel = weight.type.shape
    require(tuple(stride) == tuple(kernel), "a convolution whose patches overlap or leave gaps")
    plain = not any(padding) and set(dilation) == {1} and not transposed
    require(plain and groups == 1 and inputs == channels, "a convolution that is none of patches")
    require(all(size % k == 0 for size, k in zip(sizes, kernel, strict=True)), "patches that do not fit in")
    counts = [size // k for size, k in zip(sizes, kernel, strict=True)]
    rows = patch_rows(emit, input, counts, kernel)
    y = emit(llm.LinearOp, rows, matrix(emit, weight), bias)
    if prod(counts) > 1:
        y = emit(llm.PermuteOp, y, order=(0, 2, 1))
    return emit.reshape(y, (batch, outputs, *counts))


def patch_rows(emit: Emitter, x: Value, counts: Sequence[int], kernel: Sequence[int]) -> Value:
    """[B, patches, C * k1 * ...] of an input [B, C, n1 * k1, ...]; [1, B, C * k1 * ...] of one patch each."""
    batch, channels = x.type.shape[:2]
    width = channels * prod(kernel)
    if prod(counts) == 1:
        return emit.reshape(x, (1, batch, width))
    split = [n for pair in zip(counts, kernel, strict=True) for n in pair]
    parted = emit.reshape(x, (batch, channels, *split))
    axes = range(len(kernel))
    order = (0, *(2 + 2 * i for i in axes), 1, *(3 + 2 * i for i in axes))
    return emit.reshape(emit(llm.PermuteOp, parted, order=order), (batch, prod(counts), width))


def matrix(emit: Emitter, weight: Value) -> Value:
    """A parameter [N, ...] as [N, all else]."""
    source = weight.defining(llm.WeightOp)
    if source is None or weight.type.layout is not None:
        raise Unsupported("a convolution with what is no plain parameter")
    outputs, *rest = weight.type.shape
    type = TensorType((outputs, prod(rest)), weight.type.element)
    return emit(llm.WeightOp, name=as_matrix(source.name), types=[type])


@handles("aten.index")
def index(emit: Emitter, self: Value, indices: Sequence[Value | RowOrder | None]) -> Value:
    """Rows in an order: those that a client has put in it, or those that it asks for."""
    require(len(indices) == 1, "an index along several axes")
    (order,) = indices
    if isinstance(order, RowOrder):
        require(order.reverse.type.shape[0] == self.type.shape[0], "an order of another number of rows")
        return self
    if not isinstance(order, Value):
        raise Unsupported("an index that is no order of rows")
    require(len(self.type.shape) == 2, "rows of several axes")
    ids = emit.reshape(order, (1, *order.type.shape))
    return emit.reshape(emit(llm.GatherRowsOp, self, ids), (*order.type.shape, self.type.shape[1]))


@handles("aten.sort")
def sort(
    emit: Emitter, self: Value | RowOrder, dim: int = -1, descending: bool = False, **_stable: bool
) -> list[Value | None]:
    """Where each number of an order of rows stands in it, which undoes the order."""
    if not isinstance(self, RowOrder) or descending:
        raise Unsupported("a sort of what is no order of rows")
    return [None, self.reverse]
