"""The tensor dialect: arrays on a chip with lanes.

A tensor type without a layout lies in DDR, row-major. In local memory its layout says which axis runs over
the lanes; the same ops then serve decode (features over the lanes) and prefill (tokens over the lanes), and
only the lowering to the chip looks at layouts. Ops that only rename positions (slice, reshape, permute) move
no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from compiler.ir.core import Op
from compiler.ir.define import Attr, Operand, OptionalAttr, OptionalOperand, Result, VariadicOperand, op
from compiler.ir.types import I32, Attribute, ElementType, TensorType, Type, attr_def, type_def


@attr_def("tensor.lanes")
@dataclass(frozen=True)
class Lanes(Attribute):
    """Item i of `axis` on lane i mod lanes, in row i div lanes.

    In a lane: the axes before `axis` outermost, then the rows, then the axes after it. Every row starts on a
    multiple of the EU's bytes, the layout of matrix operands, unless `compact`.
    """

    axis: int
    compact: bool = False


@attr_def("tensor.replicated")
@dataclass(frozen=True)
class Replicated(Attribute):
    """Every lane holds the whole array, row-major."""


@type_def("tensor.packed")
@dataclass(frozen=True)
class PackedType(Type):
    """A tile of weights, `rows` (outputs) over the lanes x `columns` (inputs), in the DMA's order.

    Codes of `bits` bits, one `scale` and, unless `symmetric`, one zero point for `group` neighbouring
    columns; or, of 16 bits, the weights themselves in the type `scale`.
    """

    rows: int
    columns: int
    bits: int
    group: int
    symmetric: bool
    scale: ElementType
    local: bool = False


@attr_def("tensor.quant")
@dataclass(frozen=True)
class Quant(Attribute):
    """How a linear's weight is to be stored: see `PackedType`."""

    bits: int
    group: int
    symmetric: bool


def in_ddr(type_: Type) -> bool:
    return isinstance(type_, TensorType) and type_.layout is None


class TensorOp(Op):
    """Base of the ops of this dialect."""

    def tensor(self, index: int) -> TensorType:
        type_ = self.operands[index].type
        if not isinstance(type_, TensorType):
            self.fail(f"operand {index} is {type_}, expected a tensor")
        return type_


# --------------------------------------------------------------------------------------------- DDR and back


@op("tensor.weight")
class WeightOp(TensorOp):
    """A checkpoint tensor in DDR, or several joined along axis 0, in the result's element type."""

    sources: Attr[list[str]]
    result_: Result[TensorType]


@op("tensor.packed_weight")
class PackedWeightOp(TensorOp):
    """A rectangle of the joined sources, quantized and packed: the type's rows from `row`, columns from
    `column`.

    With `each`, the rows are an equal share of every source, from its row `row` on, one share after the
    other.
    """

    sources: Attr[list[str]]
    row: Attr[int]
    column: Attr[int]
    each: Attr[bool] = False
    result_: Result[PackedType]


@op("tensor.rope_table")
class RopeTableOp(TensorOp):
    """[positions, 2 d] f32 in DDR: a row is cos (d), sin of the first half (d/2), minus sin of the second
    (d/2).
    """

    cos: Attr[str]
    sin: Attr[str]
    result_: Result[TensorType]


@op("tensor.load")
class LoadOp(TensorOp):
    """Bring an array from DDR into local memory, in the layout of the result's type."""

    source: Operand[Type]
    value: Result[Type]


@op("tensor.store")
class StoreOp(TensorOp):
    """Write a local array to DDR, row-major."""

    value: Operand[TensorType]
    stored: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        return (TensorType(type_.shape, type_.element),)


@op("tensor.gather")
class GatherOp(TensorOp):
    """rows[..., i, :] = table[ids[i], :]; table [rows, width] and ids i32 in DDR, the result anywhere."""

    table: Operand[TensorType]
    ids: Operand[TensorType]
    rows: Result[TensorType]


# ----------------------------------------------------------------------------------------------- arithmetic


def broadcast_shape(op_: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """numpy's rule for shapes of equal rank."""
    result = []
    for sizes in zip(*shapes, strict=True):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            op_.fail(f"shapes {list(shapes)} do not broadcast")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


class Binary(TensorOp):
    """Element-wise on two arrays of equal rank, or an array and `scalar`; sizes of 1 broadcast."""

    lhs: Operand[TensorType]
    rhs: OptionalOperand[TensorType]
    scalar: OptionalAttr[float]
    result_: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        types = [self.tensor(i) for i in range(len(self.operands))]
        layout = next((t.layout for t in types if isinstance(t.layout, Lanes)), types[0].layout)
        return (TensorType(broadcast_shape(self, [t.shape for t in types]), types[0].element, layout),)

    def verify(self) -> None:
        if (self.rhs is None) == (self.scalar is None):
            self.fail("needs either rhs or scalar")


@op("tensor.add")
class AddOp(Binary):
    """lhs + rhs."""


@op("tensor.sub")
class SubOp(Binary):
    """lhs - rhs."""


@op("tensor.mul")
class MulOp(Binary):
    """lhs * rhs."""


@op("tensor.max")
class MaxOp(Binary):
    """The larger of lhs and rhs."""


class Unary(TensorOp):
    """Element-wise on one f32 array."""

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)


@op("tensor.exp2")
class Exp2Op(Unary):
    """2 to the x, for x <= 0; 0 below -126.5."""


@op("tensor.rsqrt")
class RsqrtOp(Unary):
    """1 / sqrt(x), for x > 0."""


@op("tensor.reciprocal")
class ReciprocalOp(Unary):
    """1 / x, for x > 0."""


@op("tensor.cast")
class CastOp(TensorOp):
    """Round to nearest, ties to even, into the result's element type and layout (the same lanes, maybe
    packed).
    """

    x: Operand[TensorType]
    y: Result[TensorType]


@op("tensor.gate")
class GateOp(TensorOp):
    """silu(gate) * up, in f32: x / (1 + e**-x), with x limited to -87..87 in the exponent."""

    gate: Operand[TensorType]
    up: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)


@op("tensor.reduce")
class ReduceOp(TensorOp):
    """The sum of x * scale, or the largest x, along `axis`, which stays with size 1.

    Reducing the axis that lies over the lanes leaves the result replicated.
    """

    x: Operand[TensorType]
    kind: Attr[str]
    axis: Attr[int]
    scale: Attr[float] = 1.0
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        shape = tuple(1 if i == self.axis else size for i, size in enumerate(type_.shape))
        over_lanes = isinstance(type_.layout, Lanes) and type_.layout.axis == self.axis
        return (TensorType(shape, type_.element, Replicated() if over_lanes else type_.layout),)


@op("tensor.rope")
class RopeOp(TensorOp):
    """Rotate halves: y = [x1 cos - x2 sin, x2 cos + x1 sin]; x [..., d] f32, rows [..., 2 d] as in
    `RopeTableOp`.
    """

    x: Operand[TensorType]
    rows: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)


@op("tensor.argmax")
class ArgmaxOp(TensorOp):
    """The lowest index of the largest of x [1, n], features over the lanes; i32 [1, 1] on lane 0."""

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (TensorType((1, 1), I32, Lanes(0)),)


# --------------------------------------------------------------------------------------------------- matmul


@op("tensor.dequantize")
class DequantizeOp(TensorOp):
    """(code - zero) * scale of a packed tile in local memory, as a [rows, columns] array of 16 bit.

    A tile of 16-bit weights is that array already.
    """

    packed: Operand[PackedType]
    w: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        packed = self.operands[0].type
        assert isinstance(packed, PackedType)
        return (TensorType((packed.rows, packed.columns), packed.scale, Lanes(0)),)


@op("tensor.linear")
class LinearOp(TensorOp):
    """y = x @ w.T + accumulator in f32; x [..., k] of 16 bit, w [n, k], accumulator and y [..., n].

    With w in DDR the op stands for the whole weight, stored as `quant` says; `tile-weights` leaves only local
    w.
    """

    x: Operand[TensorType]
    w: Operand[TensorType]
    accumulator: OptionalOperand[TensorType]
    quant: OptionalAttr[Quant]
    y: Result[TensorType]


@op("tensor.gated_linear")
class GatedLinearOp(TensorOp):
    """silu(x @ gate.T) * (x @ up.T), rounded to x's type; gate and up are whole weights [n, k] in DDR.

    biases: none, or two f32 rows [1, .., n] in DDR that are added to the products.
    """

    x: Operand[TensorType]
    gate: Operand[TensorType]
    up: Operand[TensorType]
    biases: VariadicOperand[TensorType]
    quant: OptionalAttr[Quant]
    y: Result[TensorType]


@op("tensor.matmul")
class MatmulOp(TensorOp):
    """y = a @ b + accumulator in f32, or a @ b.T with `transpose_b`.

    a [..., m, k] of 16 bit, with one matrix b for all leading axes; y and accumulator [..., m, n].
    """

    a: Operand[TensorType]
    b: Operand[TensorType]
    accumulator: OptionalOperand[TensorType]
    transpose_b: Attr[bool] = False
    y: Result[TensorType]


# -------------------------------------------------------------------------------------------- data movement


class Movement(TensorOp):
    """Base of the ops that compute nothing."""


@op("tensor.slice")
class SliceOp(Movement):
    """x[starts : starts + sizes], axis by axis."""

    x: Operand[TensorType]
    starts: Attr[tuple[int, ...]]
    sizes: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        return (TensorType(self.sizes, type_.element, type_.layout),)

    def verify(self) -> None:
        shape = self.tensor(0).shape
        inside = len(shape) == len(self.starts) == len(self.sizes) and all(
            0 <= start and start + size <= full
            for start, size, full in zip(self.starts, self.sizes, shape, strict=True)
        )
        if not inside:
            self.fail(f"{list(self.starts)} + {list(self.sizes)} is outside {list(shape)}")


@op("tensor.reshape")
class ReshapeOp(Movement):
    """The same items in row-major order under another shape; the axis over the lanes is not split or
    merged.
    """

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        result = self.results[0].type
        if isinstance(result, TensorType) and prod(result.shape) != prod(self.tensor(0).shape):
            self.fail(f"cannot reshape {self.tensor(0)} to {result}")


@op("tensor.permute")
class PermuteOp(Movement):
    """Axis i of y is axis order[i] of x."""

    x: Operand[TensorType]
    order: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        layout = type_.layout
        if isinstance(layout, Lanes):
            layout = Lanes(self.order.index(layout.axis), layout.compact)
        return (TensorType(tuple(type_.shape[i] for i in self.order), type_.element, layout),)


@op("tensor.concat")
class ConcatOp(Movement):
    """The parts one after the other along `axis`."""

    parts: VariadicOperand[TensorType]
    axis: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        types = [self.tensor(i) for i in range(len(self.operands))]
        shape = list(types[0].shape)
        shape[self.axis] = sum(t.shape[self.axis] for t in types)
        return (TensorType(tuple(shape), types[0].element, types[0].layout),)


@op("tensor.relayout")
class RelayoutOp(Movement):
    """The same items in row-major order, other axes over the lanes: a row [1, h d] over the lanes becomes
    heads
    [h, d] with heads over the lanes, or the reverse."""

    x: Operand[TensorType]
    y: Result[TensorType]


@op("tensor.append")
class AppendOp(Movement):
    """history [heads, s, d], s over the lanes, with the rows of new [heads, 1, d], heads over the lanes,
    at its end.
    """

    history: Operand[TensorType]
    new: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        heads, length, width = type_.shape
        return (TensorType((heads, length + 1, width), type_.element, Lanes(1)),)


@op("tensor.pad")
class PadOp(Movement):
    """x with its last axis filled up by `value` to the size in the result's type."""

    x: Operand[TensorType]
    value: Attr[float]
    y: Result[TensorType]
