"""The tensor dialect: arrays on a chip with lanes.

A tensor type without a layout lies in DDR, row-major. In local memory its layout says which axis runs over
the lanes; the same ops then serve decode (features over the lanes) and prefill (tokens over the lanes), and
only the lowering to the chip looks at layouts. Ops that only rename positions (slice, reshape, permute) move
no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Literal

from compiler.ir.core import Op, Value
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
from compiler.ir.types import (
    BF16,
    F32,
    I8,
    I32,
    UI16,
    Attribute,
    ElementType,
    TensorType,
    Type,
    attr_def,
    type_def,
)
from compiler.weights.scheme import Scheme, scheme_of
from dialects.activations import Activation
from dialects.parts import Collective, Gathers, Over, place_of
from dialects.shapes import broadcast, check_axis, check_broadcast, check_concatenation, check_count

MAX_EXACT = 1 << 24  # integers up to it are exact in f32, in which places are compared


@attr_def("tensor.lanes")
@dataclass(frozen=True)
class Lanes(Attribute):
    """Item i of `axis` on lane i mod lanes, in row i div lanes.

    In a lane: the axes before `axis` outermost, then the rows, then the axes after it. Every row starts on a
    multiple of the EU's bytes, the layout of matrix operands, unless `compact`.
    """

    axis: int
    compact: bool = False

    def alias(self) -> str:
        return f"lanes{self.axis}_compact" if self.compact else f"lanes{self.axis}"

    def problem_in(self, shape: tuple[int, ...]) -> str | None:
        return None if 0 <= self.axis < len(shape) else f"has no axis {self.axis} to put on the lanes"

    def may_be(self, other: Attribute | None) -> bool:
        """An op may write its rows with gaps or without."""
        return isinstance(other, Lanes) and other.axis == self.axis


@attr_def("tensor.replicated")
@dataclass(frozen=True)
class Replicated(Attribute):
    """Every lane holds the whole array, row-major."""

    def alias(self) -> str:
        return "replicated"

    def problem_in(self, shape: tuple[int, ...]) -> str | None:
        return None


@type_def("tensor.packed")
@dataclass(frozen=True)
class PackedType(Type):
    """A tile of weights, `rows` (outputs) over the lanes x `columns` (inputs), in the DMA's order.

    Codes, scales, zeros and minimums of a scheme, which decode to the type `element`; or, without a
    scheme, the weights themselves in that type.
    """

    rows: int
    columns: int
    element: ElementType
    scheme: Scheme | None = None
    local: bool = False

    def alias(self) -> str:
        bits = self.element.bits if self.scheme is None else self.scheme.bits
        return f"{'local' if self.local else 'packed'}_{self.rows}x{self.columns}_w{bits}"

    def problem(self) -> str | None:
        if self.rows < 1 or self.columns < 1 or self.element.bits != 16:
            return "is no tile of weights of 16 bits"
        return None if self.scheme is None else self.scheme.problem_in((self.rows, self.columns))


@type_def("tensor.sent")
@dataclass(frozen=True)
class SentType(Type):
    """What `parts` parts of a net exchange: of each an array of this shape, as it lay in its local memory."""

    parts: int
    shape: tuple[int, ...]
    element: ElementType

    def alias(self) -> str:
        return f"sent{self.parts}_{'x'.join(map(str, self.shape))}x{self.element}"

    def problem(self) -> str | None:
        right = self.parts >= 2 and min(self.shape, default=0) >= 1
        return None if right else "is of no two parts, or of nothing"


def in_ddr(type_: Type) -> bool:
    """Whether it is an array in DDR: row-major, or a weight that is stored by a scheme."""
    return isinstance(type_, TensorType) and (type_.layout is None or isinstance(type_.layout, Scheme))


def axis_over_lanes(type_: TensorType) -> int | None:
    """The axis whose items go round the lanes; None in DDR, and where every lane has all of them."""
    return type_.layout.axis if isinstance(type_.layout, Lanes) else None


def is_over_lanes(type_: TensorType, axis: int) -> bool:
    return axis_over_lanes(type_) == axis


def rows_per_lane(type_: TensorType, lanes: int) -> int:
    """How many rows along the last axis, which is not over the lanes, a lane holds."""
    axis = axis_over_lanes(type_)
    return prod(-(-size // lanes) if i == axis else size for i, size in enumerate(type_.shape[:-1]))


def is_column(type_: TensorType) -> bool:
    """Whether nothing but the axis over the lanes is longer than 1 from it on: a lane holds single items."""
    layout = type_.layout
    return isinstance(layout, Lanes) and all(size == 1 for size in type_.shape[layout.axis + 1 :])


def is_vector(type_: TensorType) -> bool:
    """Whether the last axis, longer than 1, lies over the lanes."""
    return is_over_lanes(type_, len(type_.shape) - 1) and type_.shape[-1] > 1


class TensorOp(Op):
    """Base of the ops of this dialect."""

    def tensor(self, index: int) -> TensorType:
        type_ = self.operands[index].type
        if not isinstance(type_, TensorType):
            self.fail(f"operand {index} is {type_}, expected a tensor")
        return type_

    def require_local(self, *indices: int) -> None:
        """These operands, or all, and the results lie in local memory."""
        values = [self.operands[i] for i in indices] if indices else [*self.operands]
        for value in (*values, *self.results):
            if in_ddr(value.type):
                self.fail(f"works on {value.type}, which is not in local memory: a layout is missing")

    def require_f32(self) -> None:
        for value in self.operands:
            if isinstance(value.type, TensorType) and value.type.element != F32:
                self.fail(f"takes {value.type}, expected f32")

    def require_items(self, x: TensorType, y: TensorType) -> None:
        """Both hold the same items, maybe in other shapes."""
        if x.size != y.size or x.element != y.element:
            self.fail(f"makes {y} of {x}, which holds other items")


class MadeAnywhere(TensorOp):
    """Trait of the ops whose result can be made inside of a larger array: their last instruction writes any
    strides, or they make nothing themselves and their operands are made there.
    """


class Accumulates(MadeAnywhere):
    """Trait of the ops that build their sum where the accumulator lies, if they are given one."""

    if TYPE_CHECKING:  # each declares it in its place among its operands
        accumulator: OptionalOperand[TensorType]
        y: Result[TensorType]


class ViewLike(TensorOp):
    """Trait of the ops that make nothing: their result is data of the blob, or lies in the operand."""


class Materializes(TensorOp):
    """Trait of the ops that give weights a place in local memory, in a form which arithmetic reads."""


class ReadsWholeWeights(TensorOp):
    """Trait of the ops that take a weight as it is stored in DDR; `tile-weights` cuts it for them."""


class TakesPowers(TensorOp):
    """Trait of the ops that are computed by powers of two, with a table of constants in every lane."""


# ---- DDR and back ----


@op("tensor.weight")
class WeightOp(ViewLike):
    """A checkpoint tensor in DDR, or several joined along axis 0, in the result's element type.

    One that is stored by a scheme is only read by linears, as their weight, until `tile-weights` cuts it.
    """

    sources: Attr[list[str]]
    result_: Result[TensorType]

    def verify(self) -> None:
        if not self.sources or not in_ddr(self.result_.type):
            self.fail("names no weights, or gives an array that is not in DDR")
        if scheme_of(self.result_.type) is not None:
            for user in self.result_.users:
                if not isinstance(user, ReadsWholeWeights):
                    user.fail(f"reads {self.result_.type}, which only linears can")


@op("tensor.packed_weight")
class PackedWeightOp(ViewLike):
    """A rectangle of the joined sources, packed: the type's rows from `row`, its columns from `column`.

    With `each`, the rows are an equal share of every source, from its row `row` on, one share after the
    other. With `experts`, there is such a tile for each of so many, and `tensor.load_expert` takes one.
    """

    sources: Attr[list[str]]
    row: Attr[int]
    column: Attr[int]
    each: Attr[bool] = False
    experts: Attr[int] = 0
    result_: Result[PackedType]

    def verify(self) -> None:
        if not self.sources or min(self.row, self.column, self.experts) < 0 or self.result_.type.local:
            self.fail("needs sources, a first row and column from 0 on, and a result in DDR")


@op("tensor.indices")
class IndicesOp(ViewLike):
    """Whole numbers in DDR, by the name of a parameter: [J] ui16."""

    source: Attr[str]
    result_: Result[TensorType]

    def verify(self) -> None:
        type_ = self.result_.type
        if type_.element != UI16 or type_.rank != 1 or not in_ddr(type_):
            self.fail(f"gives {type_}, expected one axis of ui16 in DDR")


@op("tensor.rope_table")
class RopeTableOp(ViewLike):
    """[positions, 2 d] f32 in DDR, or some columns of it; how a row is made of those of cos and sin, and what
    `columns` are: see `weights.RopeTable`.
    """

    cos: Attr[str]
    sin: Attr[str]
    mode: Attr[Literal["half", "interleaved", "half_tables"]] = "half"
    columns: Attr[tuple[int, ...]] = ()
    result_: Result[TensorType]

    def verify(self) -> None:
        type_ = self.result_.type
        if type_.element != F32 or len(type_.shape) != 2 or not in_ddr(type_):
            self.fail(f"gives {type_}, expected [positions, 2 d] of f32 in DDR")
        if type_.shape[1] != len(self.columns) if self.columns else type_.shape[1] % 4:
            self.fail(f"gives {type_}, expected {len(self.columns) or '2 d, with an even d,'} columns")


@op("tensor.table")
class TableOp(ViewLike):
    """A table of the model by name, f32 in DDR, row-major: [positions, width]."""

    name: Attr[str]
    result_: Result[TensorType]

    def verify(self) -> None:
        if self.result_.type.element != F32 or not in_ddr(self.result_.type):
            self.fail(f"gives {self.result_.type}, expected f32 in DDR")


@op("tensor.iota")
class IotaOp(ViewLike):
    """f32 in DDR, [.., n]: 0, step, 2 step, ..."""

    step: Attr[float] = 1.0
    result_: Result[TensorType]

    def verify(self) -> None:
        type_ = self.result_.type
        if type_.element != F32 or not in_ddr(type_) or type_.size != type_.shape[-1]:
            self.fail(f"gives {type_}, expected one row of f32 in DDR")


def is_loaded(source: PackedType, value: Type) -> bool:
    return not source.local and value == replace(source, local=True)


@op("tensor.load")
class LoadOp(MadeAnywhere, Materializes):
    """Bring an array from DDR into local memory, in the layout of the result's type."""

    source: Operand[Type]
    value: Result[Type]

    def verify(self) -> None:
        source, value = self.source.type, self.value.type
        if isinstance(source, TensorType) and isinstance(value, TensorType):
            right = in_ddr(source) and not in_ddr(value) and replace(value, layout=None) == source
        else:
            right = isinstance(source, PackedType) and is_loaded(source, value)
        if not right:
            self.fail(f"makes {value} of {source}, expected the same in local memory")


@op("tensor.load_expert")
class LoadExpertOp(Materializes):
    """Bring one expert's tile into local memory: that of expert `number`, or of ids[.., number].

    packed: tiles of experts; ids [.., k] i32 in DDR, where the choice is computed.
    """

    packed: Operand[PackedType]
    ids: OptionalOperand[TensorType]
    number: Attr[int]
    tile: Result[PackedType]

    def infer_types(self) -> tuple[Type, ...]:
        return (replace(self.packed.type, local=True),)

    def verify(self) -> None:
        source = self.packed.defining(PackedWeightOp)
        if source is None or not source.experts:
            self.fail("takes what is no tile of each expert")
        most = source.experts if self.ids is None else self.ids.type.size
        if not 0 <= self.number < most:
            self.fail(f"takes number {self.number} of {most}")
        if self.ids is not None and (self.ids.type.element != I32 or not in_ddr(self.ids.type)):
            self.fail(f"takes ids {self.ids.type}, expected i32 in DDR")


@op("tensor.store")
class StoreOp(MadeAnywhere):
    """Write a local array to DDR, row-major."""

    shapes = "value[...] stored[...]"

    value: Operand[TensorType]
    stored: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        return (TensorType(type_.shape, type_.element),)

    def verify(self) -> None:
        if in_ddr(self.tensor(0)) or not in_ddr(self.results[0].type):
            self.fail(f"takes {self.tensor(0)}, expected an array in local memory, and gives one in DDR")


@op("tensor.gather")
class GatherOp(MadeAnywhere):
    """rows[..., i, :] = table[ids[i], :]; table [rows, width] and ids i32 in DDR, the result anywhere."""

    shapes = "table[N, W] ids[...] rows[..., W]"

    table: Operand[TensorType]
    ids: Operand[TensorType]
    rows: Result[TensorType]

    def verify(self) -> None:
        if not in_ddr(self.table.type) or not in_ddr(self.ids.type) or self.ids.type.element != I32:
            self.fail(f"takes {self.table.type} and {self.ids.type}, expected a table and i32 in DDR")
        if self.rows.type.element != self.table.type.element:
            self.fail(f"gives {self.rows.type}, expected the items of {self.table.type}")


@op("tensor.scatter")
class ScatterOp(TensorOp):
    """A copy of table [rows, width] with y[ids[i], :] = rows[i, :]; ids outside of it are passed over.

    table and ids i32 are in DDR, and so is y; the rows lie one after the other on the first lane.
    """

    shapes = "table[N, W] ids[1, S] rows[1, S, W] y[N, W]"

    table: Operand[TensorType]
    ids: Operand[TensorType]
    rows: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)

    def verify(self) -> None:
        table, ids, rows = self.table.type, self.ids.type, self.rows.type
        if not in_ddr(table) or not in_ddr(ids) or ids.element != I32:
            self.fail(f"takes {table} and {ids}, expected a table and i32 in DDR")
        if rows.element != table.element or not is_over_lanes(rows, 0):
            self.fail(f"takes rows {rows}, expected the items of {table} on the first lane")


# ---- arithmetic ----


class Binary(MadeAnywhere):
    """Element-wise on two arrays of equal rank, or an array and `scalar`; sizes of 1 broadcast."""

    lhs: Operand[TensorType]
    rhs: OptionalOperand[TensorType]
    scalar: OptionalAttr[float]
    result_: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        types = [self.tensor(i) for i in range(len(self.operands))]
        layout = next((t.layout for t in types if isinstance(t.layout, Lanes)), types[0].layout)
        return (TensorType(broadcast(types[0].shape, types[-1].shape), types[0].element, layout),)

    def verify(self) -> None:
        if (self.rhs is None) == (self.scalar is None):
            self.fail("needs either rhs or scalar")
        self.require_local()
        if self.rhs is not None:
            check_broadcast(self, self.lhs.type.shape, self.rhs.type.shape)
            if (self.lhs.type.rank, self.lhs.type.element) != (self.rhs.type.rank, self.rhs.type.element):
                self.fail(f"takes {self.lhs.type} and {self.rhs.type}, expected one rank and element type")


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


@op("tensor.min")
class MinOp(Binary):
    """The smaller of lhs and rhs."""


class Unary(TensorOp):
    """Element-wise on one f32 array."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)

    def verify(self) -> None:
        self.require_local()
        self.require_f32()


@op("tensor.exp2")
class Exp2Op(Unary, MadeAnywhere, TakesPowers):
    """2 to the x, for x <= 0; 0 below -126.5."""


SHOWN, HIDDEN = 74, 127  # what `tensor.hiding` gives


@op("tensor.softmax_weights")
class SoftmaxWeightsOp(MadeAnywhere):
    """y = 2**((x - top) / steps) of rows x [.., n] f32, for x <= top; top [.., 1] f32.

    f16 is rounded once. bf16 is made in fixed point, in steps of 1 / 256, and is off by less than 1.3 units
    in its last place: with p = 256 (127 + (x - top) / steps), rounded, f = p mod 256 and c = f ((259 - f) mod
    256) / 2**7, its bits are (p - 173 c / 2**10) / 2, all quotients rounded, halves up. p comes from f32 sums
    beyond 2**23, so top is rounded to whole steps too. Where p would be negative y is 0, and where `hiding`
    is HIDDEN, which for bf16 is i8 [.., n]; its axes of size 1 broadcast, but that over the lanes.
    """

    shapes = "x[..., N] top[..., 1] y[..., N]"

    x: Operand[TensorType]
    top: Operand[TensorType]
    hiding: OptionalOperand[TensorType]
    steps: Attr[int] = 1
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        for value in (self.x, self.top):
            if value.type.element != F32:
                self.fail(f"takes {value.type}, expected f32")
        if self.y.type.element.bits != 16 or self.y.type.layout != self.x.type.layout or self.steps < 1:
            self.fail(f"makes {self.y.type} of {self.x.type} in {self.steps} steps, expected 16 bit")
        if self.hiding is not None and not self._is_hidden_by(self.hiding.type):
            self.fail(f"takes {self.hiding.type} to hide of {self.y.type}, expected i8 of its shape for bf16")

    def _is_hidden_by(self, type_: TensorType) -> bool:
        pairs = enumerate(zip(self.x.type.shape, type_.shape, strict=False))
        over_lanes = axis_over_lanes(self.x.type)
        fits = all(b == a or (b == 1 and axis != over_lanes) for axis, (a, b) in pairs)
        return (type_.element, self.y.type.element, type_.rank) == (I8, BF16, self.x.type.rank) and fits


@op("tensor.hiding")
class HidingOp(MadeAnywhere):
    """y i8: SHOWN where x, bf16, is 0 or below 2**-125, and HIDDEN elsewhere; `times` along axis 0 of size 1.

    These are two bytes: the first one of f32 below 2**23, and one that no first byte is above.
    """

    x: Operand[TensorType]
    times: Attr[int] = 1
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        shape = type_.shape if self.times == 1 else (self.times, *type_.shape[1:])
        return (replace(type_, element=I8, shape=shape),)

    def verify(self) -> None:
        self.require_local()
        x = self.x.type
        if x.element != BF16:
            self.fail(f"takes {x}, expected bf16")
        if self.times != 1 and (self.times < 1 or x.shape[0] != 1 or is_over_lanes(x, 0)):
            self.fail(f"repeats {x} {self.times} times, expected 1 row or more of one")


@op("tensor.exp2_whole")
class Exp2WholeOp(Unary, MadeAnywhere):
    """2 to the x, exactly, for whole x <= 0; 0 below -126."""


@op("tensor.ceil")
class CeilOp(Unary, MadeAnywhere):
    """The least whole number that is not below x."""


@op("tensor.rsqrt")
class RsqrtOp(Unary):
    """1 / sqrt(x), for x > 0."""


@op("tensor.reciprocal")
class ReciprocalOp(Unary):
    """1 / x, for x other than 0."""


@op("tensor.sigmoid")
class SigmoidOp(Unary, TakesPowers):
    """1 / (1 + e**-x), to within 1e-5 of it; not below 2**-64."""


@op("tensor.normal_cdf")
class NormalCdfOp(Unary, TakesPowers):
    """(1 + erf(x / sqrt(2))) / 2: how much of a normal distribution lies below x.

    To within 3e-5 of it from -5 on; what is less than that at -5 is that of another steep curve.
    """


@op("tensor.cast")
class CastOp(MadeAnywhere):
    """Round to nearest even, to the result's element type and layout: the same lanes, maybe packed."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        layout = self.x.type.layout
        if layout is not None and not layout.may_be(self.y.type.layout):
            self.fail(f"makes {self.y.type} of {self.x.type}, expected the same axis over the lanes")


class Gates(MadeAnywhere):
    """silu(gate) * up, in f32."""

    shapes = "gate[...] up[...] y[...]"

    gate: Operand[TensorType]
    up: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)

    def verify(self) -> None:
        self.require_local()
        self.require_f32()


@op("tensor.gate")
class GateOp(Gates, TakesPowers):
    """silu(gate) * up, in f32: x / (1 + e**-x), with x limited to -87..87 in the exponent."""


@op("tensor.bf16_gate")
class Bf16GateOp(Gates):
    """silu(gate) * up, in f32, to 0.4 %: as near as what is rounded to bf16 needs.

    e**-gate is made in fixed point: with p = -512 log2(e) gate, rounded, -2**15 to 2**15 - 1, f = p mod
    512 / 2, rounded down, and c = f (256 - f) / 2**6, at most 255, its bits are 2**14 (p + 512 * 127 - b)
    for b = c ((f + 1280) / 2**3) / 2**10; these quotients are rounded, halves up. With d = 1 + e**-gate and
    y that whose bits are 0x7EF40000 less those of d, the result is gate (y (2.0015 - d y)) up.
    """


@op("tensor.bf16_swish")
class Bf16SwishOp(Unary, MadeAnywhere):
    """x / (1 + e**-u) for u = slope x + cubic x**3, in f32, to 0.4 %: as near as rounding to bf16 needs.

    Power and quotient are made as those of `tensor.bf16_gate`, of p = (x**2 (s cubic) + s slope) x for
    s = -512 log2(e), or of p = (s slope) x where cubic is 0.
    """

    slope: Attr[float]
    cubic: Attr[float] = 0.0


@op("tensor.reduce")
class ReduceOp(TensorOp):
    """The sum of x * scale, or the largest x, along `axis`, which stays with size 1.

    Reducing the axis that lies over the lanes leaves the result replicated. x of 16 bit is summed in f32, as
    it is, along the last axis.
    """

    x: Operand[TensorType]
    kind: Attr[Literal["sum", "max"]]
    axis: Attr[int]
    scale: Attr[float] = 1.0
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        shape = tuple(1 if i == self.axis else size for i, size in enumerate(type_.shape))
        layout = Replicated() if is_over_lanes(type_, self.axis) else type_.layout
        return (TensorType(shape, F32, layout),)

    def verify(self) -> None:
        self.require_local()
        x = self.x.type
        check_axis(self, self.axis, x)
        plain = self.kind == "sum" and self.scale == 1 and self.axis == x.rank - 1
        if x.element != F32 and not (x.element.bits == 16 and plain and is_over_lanes(x, x.rank - 2)):
            self.fail(f"takes {x}, expected f32, or rows of 16 bit over the lanes to add up")


@op("tensor.rope")
class RopeOp(MadeAnywhere):
    """y = x cos + what each item's partner gives it; x [..., d] f32, rows [..., 2 d] as in `RopeTableOp`.

    mode half: item i and i + d/2 are partners; interleaved: neighbours 2i and 2i + 1 are; pairs_to_halves:
    half of x with its even items first, by rows for half.
    """

    shapes = "x[..., D] rows[*, W] y[..., D]"

    x: Operand[TensorType]
    rows: Operand[TensorType]
    mode: Attr[Literal["half", "interleaved", "pairs_to_halves"]] = "half"
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)

    def verify(self) -> None:
        self.require_local()
        self.require_f32()
        x, rows = self.x.type, self.rows.type
        if len(x.shape) != len(rows.shape) or rows.shape[-1] != 2 * x.shape[-1] or x.shape[-1] % 2:
            self.fail(f"takes rows {rows}, expected rows twice as wide as {x}")


@op("tensor.argmax")
class ArgmaxOp(TensorOp):
    """The lowest index of the largest of x [1, n], features over the lanes; i32 [1, 1] on lane 0."""

    shapes = "x[1, N] y[1, 1]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (TensorType((1, 1), I32, Lanes(0)),)

    def verify(self) -> None:
        if self.x.type.element != F32 or not is_over_lanes(self.x.type, 1):
            self.fail(f"takes {self.x.type}, expected f32 with axis 1 over the lanes")


@op("tensor.topk")
class TopkOp(TensorOp):
    """The k largest of the last axis, largest first, and where they are; of equals, the lowest first.

    Each row [N] lies in a lane, and the results beside it; or there is one, with its items over the lanes,
    and every lane gets the results. Numbers are finite and above -3.4e38; -0 counts as 0.
    """

    shapes = "x[..., N] values[..., K] indices[..., K]"

    x: Operand[TensorType]
    k: Attr[int]
    values: Result[TensorType]
    indices: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        type_ = self.tensor(0)
        shape = (*type_.shape[:-1], self.k)
        layout = Replicated() if is_over_lanes(type_, len(shape) - 1) else type_.layout
        return TensorType(shape, F32, layout), TensorType(shape, I32, layout)

    def verify(self) -> None:
        self.require_local()
        self.require_f32()
        x = self.x.type
        check_count(self, self.k, x)
        if form_of(x) == "neither" or x.shape[-1] > MAX_EXACT:
            self.fail(f"takes {x}, expected rows over the lanes, or the items of one, at most {MAX_EXACT}")


@op("tensor.nucleus")
class NucleusOp(TakesPowers):
    """As llm.nucleus, with all operands f32 on every lane; temperature, top_k and top_p [1, 1]."""

    shapes = "x[1, K] temperature[1, 1] top_k[1, 1] top_p[1, 1] y[1, K]"

    x: Operand[TensorType]
    temperature: Operand[TensorType]
    top_k: Operand[TensorType]
    top_p: Operand[TensorType]
    least: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (self.tensor(0),)

    def verify(self) -> None:
        self.require_f32()
        check_count(self, self.least, self.x.type)
        for value in self.operands:
            if value.type.layout != Replicated():
                self.fail(f"takes {value.type}, expected it on every lane")


# ---- matmul ----


@op("tensor.dequantize")
class DequantizeOp(Materializes):
    """(code - zero) * scale of a packed tile in local memory, rounded once to [rows, columns] of 16 bit.

    A tile of 16-bit weights is that array already.
    """

    packed: Operand[PackedType]
    w: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        packed = self.packed.type
        return (TensorType((packed.rows, packed.columns), packed.element, Lanes(0)),)

    def verify(self) -> None:
        if not self.packed.type.local:
            self.fail(f"takes {self.packed.type}, which is not in local memory")


@op("tensor.linear")
class LinearOp(Accumulates, ReadsWholeWeights):
    """y = x @ w.T + accumulator in f32; x [..., k] of 16 bit, w [n, k], accumulator and y [..., n].

    With w in DDR the op stands for the whole weight, stored as its type says; `tile-weights` leaves only
    local w.
    """

    shapes = "x[..., K] w[N, K] accumulator[..., N] y[..., N]"

    x: Operand[TensorType]
    w: Operand[TensorType]
    accumulator: OptionalOperand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        check_product(self, self.x.type, self.y.type)
        check_accumulator(self, self.accumulator, self.y.type)
        if in_ddr(self.w.type):
            check_whole_weight(self, self.w, self.x.type)
        elif self.w.type.layout != Lanes(0) or self.w.type.element != self.x.type.element:
            self.fail(f"takes the weight {self.w.type}, expected {self.x.type.element}, rows over the lanes")


@op("tensor.gated_linear")
class GatedLinearOp(ReadsWholeWeights):
    """act(x @ gate.T) * (x @ up.T), rounded to x's type; gate and up are whole weights [n, k] in DDR.

    biases: none, or two f32 rows [1, .., n] in DDR that are added to the products. silu of bf16 is that of
    `tensor.bf16_gate`.
    """

    shapes = "x[..., K] gate[N, K] up[N, K] biases[*, N] y[..., N]"

    x: Operand[TensorType]
    gate: Operand[TensorType]
    up: Operand[TensorType]
    biases: VariadicOperand[TensorType]
    act: Attr[Activation] = "silu"
    y: Result[TensorType]

    def verify(self) -> None:
        check_product(self, self.x.type, self.y.type)
        if len(self.biases) not in (0, 2) or not all(in_ddr(bias.type) for bias in self.biases):
            self.fail("takes no biases, or two rows in DDR")
        if self.y.type.element != self.x.type.element:
            self.fail(f"gives {self.y.type}, expected the element type of {self.x.type}")
        for weight in (self.gate, self.up):
            check_whole_weight(self, weight, self.x.type)
        if self.gate.type != self.up.type:
            self.fail(f"takes gate {self.gate.type} and up {self.up.type}, which one tile cannot hold")


@op("tensor.act_linear")
class ActLinearOp(ReadsWholeWeights):
    """act(x @ w.T + bias), rounded to x's type; w is a whole weight [n, k] in DDR, bias a f32 row [1, .., n]
    there.
    """

    shapes = "x[..., K] w[N, K] bias[*, N] y[..., N]"

    x: Operand[TensorType]
    w: Operand[TensorType]
    bias: OptionalOperand[TensorType]
    act: Attr[Activation]
    y: Result[TensorType]

    def verify(self) -> None:
        check_product(self, self.x.type, self.y.type)
        if self.bias is not None and not in_ddr(self.bias.type):
            self.fail(f"takes the bias {self.bias.type}, expected a row in DDR")
        if self.y.type.element != self.x.type.element:
            self.fail(f"gives {self.y.type}, expected the element type of {self.x.type}")
        check_whole_weight(self, self.w, self.x.type)


@op("tensor.experts")
class ExpertsOp(ReadsWholeWeights):
    """y = accumulator + sum over all experts e of down[e] @ (inner[e] * shares[.., e]) in f32, where

    inner[e] = act(min(gate[e] @ x, limit)) * (clip(up[e] @ x, -limit, limit) + offset), with gate_bias and
    up_bias added to the products, without a limit no clipping, and act(up[e] @ x) where there is no gate.

    x [..., k] of 16 bit; shares [..., N] f32, 0 for the experts that a token did not choose; or, with ids
    [.., n] i32 in DDR, those of the n chosen experts of the one token, and the others are none. gate and up
    [N, f, k], down [N, k, f], biases [N, f], each a tensor.weight in DDR whose source is named as those of
    all experts are (`compiler.weights.part`). The product of inner and share is rounded to 16 bit; silu of
    a gate for bf16 is that of `tensor.bf16_gate`.
    """

    shapes = (
        "x[..., K] shares[..., C] gate[N, F, K] up[N, F, K] down[N, K, F] gate_bias[N, F] up_bias[N, F] "
        "accumulator[..., K] y[..., K]"
    )

    x: Operand[TensorType]
    shares: Operand[TensorType]
    gate: OptionalOperand[TensorType]
    up: Operand[TensorType]
    down: Operand[TensorType]
    gate_bias: OptionalOperand[TensorType]
    up_bias: OptionalOperand[TensorType]
    accumulator: OptionalOperand[TensorType]
    ids: OptionalOperand[TensorType]
    act: Attr[Activation] = "silu"
    limit: OptionalAttr[float]
    offset: Attr[float] = 0.0
    y: Result[TensorType]

    def verify(self) -> None:
        check_product(self, self.x.type, self.y.type)
        check_accumulator(self, self.accumulator, self.y.type)
        for stack in (self.gate, self.up, self.down):
            if stack is not None:
                check_whole_weight(self, stack, self.x.type)
        if self.gate is not None and self.gate.type != self.up.type:
            self.fail(f"takes gate {self.gate.type} and up {self.up.type}, which one tile cannot hold")
        if (self.gate_bias is None) != (self.gate is None or self.up_bias is None):
            self.fail("takes a bias of each product, or of none")
        count = self.up.type.shape[0] if self.ids is None else self.ids.type.size
        if self.shares.type.shape[-1] != count:
            self.fail(f"takes shares {self.shares.type} of {count} experts")
        if self.ids is not None and (self.ids.type.element != I32 or not in_ddr(self.ids.type)):
            self.fail(f"takes ids {self.ids.type}, expected i32 in DDR")
        if self.shares.type.element != F32 or in_ddr(self.shares.type):
            self.fail(f"takes shares {self.shares.type}, expected f32 in local memory")


@op("tensor.matmul")
class MatmulOp(Accumulates):
    """y = a @ b + accumulator in f32, or a @ b.T with `transpose_b`.

    a [..., m, k] of 16 bit, with one matrix b for all leading axes; y and accumulator [..., m, n].
    """

    shapes = "a[..., M, K] b[_, _] accumulator[..., M, N] y[..., M, N]"

    a: Operand[TensorType]
    b: Operand[TensorType]
    accumulator: OptionalOperand[TensorType]
    transpose_b: Attr[bool] = False
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        inner, columns = self.b.type.shape[:: -1 if self.transpose_b else 1]
        if (inner, columns) != (self.a.type.shape[-1], self.y.type.shape[-1]):
            self.fail(f"does not make {self.y.type} of {self.a.type} and {self.b.type}")
        if self.b.type.layout != Lanes(0):
            self.fail(f"takes {self.b.type} on the right, expected its rows over the lanes")
        check_product(self, self.a.type, self.y.type)
        check_accumulator(self, self.accumulator, self.y.type)


def in_lanes(type_: TensorType) -> object:
    """What shapes of the same items share if they lie in the same lanes: the sizes around the lanes' axis."""
    layout, shape = type_.layout, type_.shape
    if not isinstance(layout, Lanes):
        return layout
    sizes = prod(shape[: layout.axis]), shape[layout.axis], prod(shape[layout.axis + 1 :])
    return (layout.compact, *sizes)


def form_of(type_: TensorType) -> str:
    """Whether one token's items lie over the lanes in a row, or by heads [..., h, d]."""
    axis, rank = axis_over_lanes(type_), len(type_.shape)
    if axis is None or prod(type_.shape[:axis]) != 1:
        return "neither"
    return {rank - 1: "row", rank - 2: "heads"}.get(axis, "neither")


def check_product(op_: TensorOp, x: TensorType, y: TensorType) -> None:
    """The left operand is 16 bit; it and the result lie with rows over the lanes, or as a column."""
    axis, rank = axis_over_lanes(x), len(x.shape)
    if axis is None or axis not in (rank - 2, rank - 1) or not is_over_lanes(y, axis) or x.element.bits != 16:
        op_.fail(f"makes {y} of {x}, expected 16 bit, with rows or a single row's items over the lanes")
    if axis == rank - 1 and prod(x.shape[:-1]) != 1:
        op_.fail(f"takes several rows with their items over the lanes, {x}")


def check_accumulator(op_: TensorOp, start: Value[TensorType] | None, y: TensorType) -> None:
    if y.element != F32 or (start is not None and start.type != y):
        op_.fail(f"adds to {start.type if start else 0} in {y}, expected f32 in one layout")


def check_whole_weight(op_: TensorOp, w: Value[TensorType], x: TensorType) -> None:
    """It is a parameter in DDR, in the type of the activations once it is decoded."""
    if w.defining(WeightOp) is None or w.type.element != x.element:
        op_.fail(f"takes {w.type} as a whole weight, expected a tensor.weight of {x.element}")


# ---- data movement ----


class Movement(TensorOp):
    """Base of the ops that compute nothing."""


@op("tensor.slice")
class SliceOp(Movement, ViewLike):
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
            0 <= start and size >= 1 and start + size <= full
            for start, size, full in zip(self.starts, self.sizes, shape, strict=True)
        )
        if not inside:
            self.fail(f"{list(self.starts)} + {list(self.sizes)} is outside {list(shape)}")


@op("tensor.reshape")
class ReshapeOp(Movement, MadeAnywhere, ViewLike):
    """The same items in row-major order under another shape; the axis over the lanes stays one axis."""

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_items(self.x.type, self.y.type)
        if in_lanes(self.x.type) != in_lanes(self.y.type):
            self.fail(f"makes {self.y.type} of {self.x.type}, which lies in other lanes")


@op("tensor.broadcast")
class BroadcastOp(Movement, MadeAnywhere):
    """x with axes of 1 repeated; one that is over the lanes then, or a new one there, has its item copied to
    all of them.
    """

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        x, y = self.x.type, self.y.type
        if x.element != y.element or x.rank != y.rank or broadcast(x.shape, y.shape) != y.shape:
            self.fail(f"makes {y} of {x}, which does not repeat its axes of 1")
        axis = axis_over_lanes(x)
        if axis is not None and x.shape[axis] > 1 and axis_over_lanes(y) != axis:
            self.fail(f"makes {y} of {x}, whose items lie in other lanes")


@op("tensor.permute")
class PermuteOp(Movement, MadeAnywhere, ViewLike):
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

    def verify(self) -> None:
        if sorted(self.order) != list(range(len(self.x.type.shape))):
            self.fail(f"order {list(self.order)} is not a permutation of the axes of {self.x.type}")


@op("tensor.concat")
class ConcatOp(Movement, MadeAnywhere, Materializes):
    """The parts one after the other along `axis`."""

    parts: VariadicOperand[TensorType]
    axis: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        types = [self.tensor(i) for i in range(len(self.operands))]
        shape = list(types[0].shape)
        shape[self.axis] = sum(t.shape[self.axis] for t in types)
        return (TensorType(tuple(shape), types[0].element, types[0].layout),)

    def verify(self) -> None:
        check_concatenation(self, self.parts, self.axis)
        if len({(part.type.element, part.type.layout) for part in self.parts}) > 1:
            self.fail("joins arrays of several element types or layouts")


@op("tensor.relayout")
class RelayoutOp(Movement):
    """The same items in row-major order with another axis over the lanes.

    A row [.., 1, h d] with its items over the lanes becomes [.., h, d] with heads over the lanes, or the
    reverse.
    """

    x: Operand[TensorType]
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        self.require_items(self.x.type, self.y.type)
        if sorted(map(form_of, (self.x.type, self.y.type))) != ["heads", "row"]:
            self.fail(f"makes {self.y.type} of {self.x.type}, expected a row and heads over the lanes")


@op("tensor.take")
class TakeOp(Movement):
    """y[..., j] = x[..., order[j]] of 16 bit: rows over the lanes, or the items of one row.

    order [J] ui16 lies over the lanes, packed.
    """

    shapes = "x[..., K] order[J] y[..., J]"

    x: Operand[TensorType]
    order: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        x = self.tensor(0)
        axis = axis_over_lanes(x)
        layout = None if axis is None else Lanes(axis)
        return (TensorType((*x.shape[:-1], *self.tensor(1).shape), x.element, layout),)

    def verify(self) -> None:
        self.require_local()
        x, order = self.x.type, self.order.type
        if form_of(x) == "neither" or x.element.bits != 16:
            self.fail(f"takes {x}, expected 16 bit, with rows or the items of one over the lanes")
        if order.element != UI16 or order.layout != Lanes(0, compact=True):
            self.fail(f"takes the order {order}, expected ui16, packed over the lanes")


@op("tensor.replicate")
class ReplicateOp(Movement):
    """What lies in lane 0, on every lane: one row [.., 1, n] of rows over the lanes, or a single number."""

    shapes = "x[...] y[...]"

    x: Operand[TensorType]
    y: Result[TensorType]

    def infer_types(self) -> tuple[Type, ...]:
        return (replace(self.tensor(0), layout=Replicated()),)

    def verify(self) -> None:
        self.require_local()
        axis = axis_over_lanes(self.x.type)
        if axis is None or self.x.type.size != prod(self.x.type.shape[axis + 1 :]):
            self.fail(f"takes {self.x.type}, of which more than lane 0 has a part")


@op("tensor.pad")
class PadOp(Movement, MadeAnywhere):
    """x with its last axis filled up by `value` to the size in the result's type."""

    shapes = "x[..., K] y[..., L]"

    x: Operand[TensorType]
    value: Attr[float]
    y: Result[TensorType]

    def verify(self) -> None:
        self.require_local()
        x, y = self.x.type, self.y.type
        if y.shape[-1] < x.shape[-1] or (x.element, x.layout) != (y.element, y.layout):
            self.fail(f"makes {y} of {x}, expected a longer last axis and nothing else")


# ---- exchange between the parts of a net; see `dialects.parts` ----


@op("tensor.send")
class SendOp(TensorOp, Collective):
    """Give x to all parts, of which each gives one like it; they take them by `tensor.receive`.

    Other work may stand between the two: nobody waits here. All receive in the order in which they sent.
    """

    x: Operand[TensorType]
    over: Attr[Over]
    sent: Result[SentType]

    def verify(self) -> None:
        self.require_local(0)
        x, sent = self.x.type, self.sent.type
        if (sent.shape, sent.element) != (x.shape, x.element):
            self.fail(f"makes {sent} of {x}")
        if sent.parts != (count := place_of(self, self.over)[1]):
            self.fail(f"sends to {sent.parts} parts, and the net has {count}")


@op("tensor.receive", effects=True)
class ReceiveOp(TensorOp):
    """What each part sent, in the order of the parts: arrays that lie as this part's own does, or in DDR, of
    which some may be loaded at a time; a vector is there in no order of its own.
    """

    sent: Operand[SentType]
    arrays: VariadicResult[TensorType]

    def verify(self) -> None:
        sent = self.sent.type
        if len(self.arrays) != sent.parts:
            self.fail(f"receives {len(self.arrays)} arrays of {sent.parts} parts")
        own = self.own.type
        right = (own,) if is_vector(own) else (own, replace(own, layout=None))
        for array in self.arrays:
            if array.type not in right:
                self.fail(f"receives {array.type} where this part sent {own}")

    @property
    def own(self) -> Value:
        """What this part sent."""
        source = self.sent.defining(SendOp)
        if source is None:
            self.fail("takes what is not sent")
        return source.x


@op("tensor.join")
class JoinOp(Gathers, MadeAnywhere):
    """The parts' x one after the other along `axis`, as one array in DDR of which each part stores its own.

    What others store is there when the program has ended: a part may read no more than its own.
    """

    x: Operand[TensorType]
    over: Attr[Over]
    axis: Attr[int]
    sizes: Attr[tuple[int, ...]]
    y: Result[TensorType]

    def verify(self) -> None:
        if not in_ddr(self.x.type):
            self.fail(f"takes {self.x.type}, expected an array in DDR")
        self.check_sizes()

    def own_starts(self) -> list[int]:
        """Where this part's x begins in y."""
        number, _ = place_of(self, self.over)
        starts = [0] * self.x.type.rank
        starts[self.axis] = sum(self.sizes[:number])
        return starts
