"""A small dialect that the IR's own tests define ops, types and attributes in."""

from __future__ import annotations

from dataclasses import dataclass

import dialects.builtin  # noqa: F401  (defines modules and functions)
from compiler.ir.core import Op, Region
from compiler.ir.define import (
    Attr,
    Operand,
    OptionalAttr,
    OptionalOperand,
    Result,
    VariadicOperand,
    VariadicResult,
    op,
)
from compiler.ir.parser import parse_body
from compiler.ir.rewrite import Rewriter, rewrite
from compiler.ir.types import BF16, Attribute, ElementType, TensorType, Type, attr_def, type_def


@type_def("toy.buffer")
@dataclass(frozen=True)
class BufferType(Type):
    bytes: int
    share: float | None = None


@attr_def("toy.flag")
@dataclass(frozen=True)
class Flag(Attribute):
    """An attribute without fields."""


@attr_def("toy.view")
@dataclass(frozen=True)
class View(Attribute):
    dtype: ElementType
    strides: tuple[int, ...] = ()
    scale: float = 1.0
    name: str = ""
    exact: bool = False
    inner: Attribute | None = None


@op("toy.norm")
class NormOp(Op):
    x: Operand[TensorType]
    weight: Operand[TensorType]
    eps: Attr[float]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.x.type,)

    def verify(self) -> None:
        hidden = self.x.type.shape[-1]
        if self.weight.type.shape != (hidden,):
            self.fail(f"weight is {self.weight.type}, expected [{hidden}] to match the last axis of x")


@op("toy.silu")
class SiluOp(Op):
    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.x.type,)


@op("toy.mul")
class MulOp(Op):
    lhs: Operand[TensorType]
    rhs: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.lhs.type,)


@op("toy.swiglu")
class SwigluOp(Op):
    gate: Operand[TensorType]
    up: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.gate.type,)


@op("toy.linear")
class LinearOp(Op):
    x: Operand[TensorType]
    bias: OptionalOperand[TensorType]
    residual: OptionalOperand[TensorType]
    more: VariadicOperand[TensorType]
    act: OptionalAttr[str]
    view: OptionalAttr[View]
    group: Attr[int] = 64
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.x.type,)


@op("toy.split")
class SplitOp(Op):
    x: Operand[TensorType]
    first: Result[TensorType]
    rest: VariadicResult[TensorType]


@op("toy.store", effects=True)
class StoreOp(Op):
    x: Operand[TensorType]
    token: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.x.type,)


@op("toy.loop")
class LoopOp(Op):
    values: VariadicOperand[TensorType]
    body: Region


@op("toy.weight")
class WeightOp(Op):
    """Has a field that is called as an attribute of every op."""

    name: Attr[str]
    y: Result[TensorType]


@rewrite(MulOp)
def fuse_swiglu(op: MulOp, rw: Rewriter) -> None:
    """mul(silu(gate), up) -> swiglu(gate, up), unless something else reads the silu."""
    silu = op.lhs.defining(SiluOp)
    if silu is None or not silu.y.has_one_use():
        return
    rw.replace(op, SwigluOp(silu.x, op.rhs, loc=op.loc))


ROW, ROW_TEXT = TensorType((4, 8), BF16), "tensor<4x8xbf16>"


def parse_op(text: str) -> Op:
    """The first op of a text."""
    (op, *_) = parse_body(text).block.ops
    return op
