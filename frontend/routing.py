"""Routers in the llm dialect: handlers as in `aten.py`, of choices of the largest and their use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.ir.core import Value
from compiler.ir.types import TensorType
from dialects import llm
from frontend.aten import Emitter, Tensor, expand, handles, is_last, require


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros that something will be written into."""

    shape: tuple[int, ...]


@handles("aten.topk")
def topk(
    emit: Emitter, self: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, ...]:
    """Sorted in either case, which is one of the orders that an unsorted one may have."""
    require(largest and is_last(self, dim), "the smallest elements, or those of another axis than the last")
    return emit.all(llm.TopkOp, self, k=k)


@handles("aten.max")
def max_of(emit: Emitter, self: Value, dim: int, keepdim: bool = False) -> tuple[Value, ...]:
    found = topk(emit, self, 1, dim)
    return found if keepdim else tuple(emit.reshape(each, each.type.shape[:-1]) for each in found)


@handles("aten.gather")
def gather(emit: Emitter, self: Value, dim: int, index: Value) -> Value:
    require(is_last(self, dim), "a choice along another axis than the last")
    return emit(llm.TakeAlongOp, self, index)


@handles("aten.zeros_like")
def zeros_like(emit: Emitter, self: Value, **_storage: Any) -> Zeros:
    return Zeros(self.type.shape)


@handles("aten.scatter")
def scatter(emit: Emitter, self: Value | Zeros, dim: int, index: Value, value: Tensor) -> Value:
    """A number written to the places of the last axis that the indices say."""
    require(
        not isinstance(value, Value) and isinstance(self, Zeros | Value), "several values written by index"
    )
    shape = self.shape if isinstance(self, Zeros) else self.type.shape
    require(dim % len(shape) == len(shape) - 1, "a write along another axis than the last")
    places = emit(llm.MultiHotOp, index, size=shape[-1], types=[TensorType(shape, emit.element)])
    if isinstance(self, Value):
        return masked_fill(emit, self, places, value)
    return places if value == 1 else emit(llm.MulOp, places, value=float(value))  # type: ignore[arg-type]


@handles("aten.masked_fill")
def masked_fill(emit: Emitter, self: Value, mask: Value, value: Tensor) -> Value:
    mask = expand(emit, mask, self.type.shape)
    require(not isinstance(value, Value), "a value that is computed")
    return emit(llm.MaskedFillOp, self, mask, value=float(value))  # type: ignore[arg-type]
