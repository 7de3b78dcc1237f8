"""The chip dialect: the TPU's own instructions, over buffers that are values.

An operand is a buffer (a local buffer of so many bytes in every lane, or a region of DDR) seen through a
`#chip.view`. Until a buffer has an address, dependence follows from buffers and byte ranges; afterwards the
same ops carry offsets, ids and waits. One class per instruction family; `fields` is the only place that knows
how an op's operands become the registers that `compiler.target.isa` packs into bits.

Source of the instruction fields: the BM1684X register tables, rendered in `compiler.target.isa`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, ClassVar, Literal, cast

from compiler.ir.core import Op, OwnAttributes, Value
from compiler.ir.define import Attr, Operand, OptionalAttr, OptionalOperand, Result, VariadicOperand, op
from compiler.ir.module import Function
from compiler.ir.types import F32, UI32, Attribute, ElementType, TensorType, Type, attr_def, type_def
from compiler.sizes import round_up
from compiler.target import families, isa
from compiler.target.isa import split_address
from compiler.target.spec import ChipSpec
from dialects import nets
from dialects.weights import WeightSource

Shape4 = tuple[int, int, int, int]  # n, c (channels, spread over the lanes), h, w
Fields = dict[str, int]

PRECISION = isa.PRECISION | {"ui4": 6, "ui8": 0, "ui16": 3, "ui32": 4}  # signedness is a field of its own
MAX_BYTES = 1 << 40  # more than any memory has
MAX_SIZE = 0xFFFF  # of one axis of an instruction's shape
MAX_MESSAGE = 0x7F  # seven bits, for its number and for how many send it
SIZES = ("m", "k", "n", "rows", "columns", "block", "channels", "table_rows", "width")
STRIDES = ("row_stride", "table_stride", "n_stride", "c_stride", "index_stride", "terms")
REMEMBERED = 8192  # results of functions of shapes, of which a program has few
LEAST = dict.fromkeys(SIZES, 1) | dict.fromkeys(STRIDES, 0)  # of attributes that are numbers
AXES = {"shape": 4, "kernel": 2}  # of attributes that are sizes
ID, WAIT = "chip.id", "chip.wait"  # attributes of instructions
SIGNED = {"i4", "i8", "i16", "i32", "f16", "f32", "bf16"}


@type_def("chip.local")
@dataclass(frozen=True)
class LocalType(Type):
    """`bytes` of local memory in every lane."""

    bytes: int

    def alias(self) -> str:
        return f"local{self.bytes}"

    def problem(self) -> str | None:
        return None if 1 <= self.bytes <= MAX_BYTES else "is of no possible size"


@type_def("chip.global")
@dataclass(frozen=True)
class GlobalType(Type):
    """`bytes` of DDR."""

    bytes: int

    def alias(self) -> str:
        return f"global{self.bytes}"

    def problem(self) -> str | None:
        return None if 1 <= self.bytes <= MAX_BYTES else "is of no possible size"


BufferType = LocalType | GlobalType


@attr_def("chip.view")
@dataclass(frozen=True)
class View(Attribute):
    """Where an operand lies in its buffer.

    offset: bytes from the buffer's start, the same in every lane; lane: where channel 0 sits; strides: n, c,
    h, w in elements, the c stride from one row of lanes to the next. No strides means the EU-aligned layout
    of the shape in local memory, and row-major order in DDR.
    """

    dtype: ElementType
    offset: int = 0
    lane: int = 0
    strides: tuple[int, ...] = ()

    def alias(self) -> str | None:
        """Where it says no more than the type: most operands fill their buffers."""
        return None if self.offset or self.lane or self.strides else f"{self.dtype.name}_view"

    def problem(self) -> str | None:
        if self.dtype.name not in PRECISION:
            return f"holds {self.dtype}, which no instruction takes"
        right = min(self.offset, self.lane, *self.strides) >= 0 and len(self.strides) in (0, 4)
        return None if right else "has a negative number, or not four strides or none"


@attr_def("chip.const")
@dataclass(frozen=True)
class Const(Attribute):
    """An operand held in the instruction: the bit pattern of one element."""

    dtype: ElementType
    bits: int

    def problem(self) -> str | None:
        right = self.dtype.name in PRECISION and 0 <= self.bits < 1 << self.dtype.bits
        return None if right else "is no number of a type that instructions take"


Items = tuple[Value, View, Shape4]  # of a buffer, n x c x h x w of them as the view has them


def constant(value: float, dtype: ElementType) -> Const:
    """The bit pattern of `value`: its format's bits for a float, two's complement in 32 for integers."""
    if dtype == F32:
        packed = struct.pack("<f", value)
    else:
        packed = dtype.numpy.type(value).tobytes() if dtype.is_float else struct.pack("<i", int(value))
    return Const(dtype, int.from_bytes(packed, "little") & ((1 << dtype.bits) - 1))


@lru_cache(REMEMBERED)
def aligned_strides(shape: Shape4, dtype: ElementType, spec: ChipSpec, lane: int = 0) -> Shape4:
    """Strides of the EU-aligned layout: each channel of a lane starts on a multiple of the EU's bytes."""
    _, c, h, w = shape
    c_stride = round_up(h * w, 8 * spec.eu_bytes // dtype.bits)
    return -(-(lane + c) // spec.lanes) * c_stride, c_stride, w, 1


def row_major(shape: Shape4) -> Shape4:
    _n, c, h, w = shape
    return c * h * w, h * w, w, 1


@dataclass(frozen=True)
class Access:
    """Bytes [start, stop) of `buffer` touched in lanes [lane, lane_stop); DDR accesses have lane 0 to 1.

    An access to DDR is exact: what it touches are pieces of equal size, at the places that nested loops of
    (count, bytes from one to the next) give; no loops mean one piece.
    """

    buffer: Value
    write: bool
    start: int
    stop: int
    lane: int = 0
    lane_stop: int = 1
    loops: tuple[tuple[int, int], ...] = ()

    @property
    def piece_bytes(self) -> int:
        """Bytes that follow each other."""
        return self.stop - self.start - sum((count - 1) * step for count, step in self.loops)

    def conflicts(self, other: Access) -> bool:
        return (
            self.buffer is other.buffer
            and (self.write or other.write)
            and self.start < other.stop
            and other.start < self.stop
            and self.lane < other.lane_stop
            and other.lane < self.lane_stop
        )


@dataclass(frozen=True)
class Placement:
    """The chip, and every buffer's address: a byte in the lane for local ones, a 40-bit address in DDR."""

    spec: ChipSpec
    address: Callable[[Value], int]
    lane_bytes: int

    def tiu(self, buffer: Value, view: View) -> int:
        return view.lane * self.lane_bytes + self.address(buffer) + view.offset

    def dma(self, buffer: Value, view: View) -> int:
        if isinstance(buffer.type, GlobalType):
            return self.address(buffer) + view.offset
        return self.spec.dma_local_base + self.tiu(buffer, view)


class BufferOp(Op):
    """Base of the two ops that define a buffer."""


@op("chip.local")
class LocalOp(BufferOp):
    """A buffer in local memory at byte `offset` of every lane; no offset means not allocated yet."""

    verifies_form = True

    offset: OptionalAttr[int]
    buffer: Result[LocalType]

    def verify(self) -> None:
        if self.offset is not None and self.offset < 0:
            self.fail(f"offset {self.offset} is negative")


@op("chip.global")
class GlobalOp(BufferOp):
    """A region of DDR at `address`.

    space: "input" and "output" (`index` counts in the net's signature, `tensor` is what the client sees),
    "scratch", "shared" (scratch memory to which the functions of all cores give the same `index`), or
    "weight", in which case `source` says which bytes of the coefficient blob it holds.
    """

    space: Attr[Literal["input", "output", "scratch", "shared", "weight"]]
    index: OptionalAttr[int]
    tensor: OptionalAttr[TensorType]
    source: OptionalAttr[WeightSource]
    address: OptionalAttr[int]
    buffer: Result[GlobalType]

    def verify(self) -> None:
        if self.space not in ("input", "output") and self.tensor is not None:
            self.fail("has a place in the net's signature, but is no input or output")
        if self.space in ("scratch", "weight") and self.index is not None:
            self.fail("has a place in the net's signature, but is no input or output")
        if self.space == "shared" and self.index is None:
            self.fail("does not say which of the regions it is that cores share")
        if (self.space == "weight") != (self.source is not None):
            self.fail("says where its bytes come from if, and only if, it holds weights")
        if min(self.address or 0, self.index or 0) < 0:
            self.fail("has a negative address or index")
        if self.space in ("input", "output"):
            self._verify_in_net()

    def _verify_in_net(self) -> None:
        """What the client sees here is what `bm.net` of the function says."""
        function = self.parent_op
        if not isinstance(function, Function) or nets.KEY not in function.attributes:
            return
        net, index = nets.net_of(function), self.index or 0
        stated = net.inputs if self.space == "input" else net.outputs
        if index >= len(stated):
            self.fail(f"is {self.space} {index} of net {net.name!r}, which has {len(stated)}")
        if self.tensor is not None and (problem := stated[index].problem_of(self.tensor)):
            self.fail(problem)


class Ordered(OwnAttributes):
    """The attributes of an instruction that has its place: its own are its id, and its wait if it has one."""

    __slots__ = ("id", "wait")

    def __init__(self, shared: Mapping[str, Any], id: int, wait: int) -> None:
        super().__init__(shared)
        self.id = id
        self.wait = wait

    def __getitem__(self, name: str) -> Any:
        if name == ID:
            return self.id
        if name == WAIT and self.wait:
            return self.wait
        return self.shared[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.shared
        yield from (ID, WAIT) if self.wait else (ID,)

    def __len__(self) -> int:
        return len(self.shared) + 1 + bool(self.wait)


class Instruction(Op):
    """Base of all instructions: what engine runs it, what bytes it touches, what its registers hold."""

    engine: ClassVar[str]
    family: ClassVar[str]
    KINDS: ClassVar[Collection[str]] = ()  # of a family whose kinds are those of the instruction tables
    verifies_form = True

    def verify(self) -> None:
        if self.KINDS and self.attributes["kind"] not in self.KINDS:
            self.fail(f"kind is {self.attributes['kind']!r}, expected one of {', '.join(self.KINDS)}")

    def verify_place(self) -> None:
        for value in self.operands:
            if not isinstance(value.owner, BufferOp):
                self.fail("works on what is not made by chip.local or chip.global")
        self._verify_order()

    @classmethod
    def problem_of(cls, name: str, value: Any) -> str | None:
        if name in AXES and (len(value) != AXES[name] or min(value) < 1 or max(value) > MAX_SIZE):
            return f"expected {AXES[name]} sizes from 1 to {MAX_SIZE}"
        if name in LEAST and not LEAST[name] <= value <= MAX_BYTES:
            return f"expected a number from {LEAST[name]} on"
        return None

    def _verify_order(self) -> None:
        own = self.attributes
        if isinstance(own, Ordered):
            numbers = own.id, own.wait or 1
        else:
            numbers = own.get(ID, 1), own.get(WAIT, 1)
        for name, number in zip((ID, WAIT), numbers, strict=True):
            if not isinstance(number, int) or not 1 <= number <= MAX_BYTES:
                self.fail(f"{name} is {number}, expected a number from 1 on")

    def isa_kind(self) -> str:
        return cast(str, self.attributes["kind"])

    @property
    def id(self) -> int:
        """Position in the engine's queue, from 1; 0 before `insert-waits`."""
        own = self.attributes
        return own.id if isinstance(own, Ordered) else cast(int, own.get(ID, 0))

    @property
    def wait(self) -> int:
        """The other engine must have finished its instruction of this id; 0 for none."""
        own = self.attributes
        return own.wait if isinstance(own, Ordered) else cast(int, own.get(WAIT, 0))

    def written(self) -> Items:
        """What it writes, in the strides of the view if they are not those of the shape."""
        return self.operands[0], self.attributes["res"], self.attributes["shape"]

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        """Every byte range read or written, as the hull per operand."""
        raise NotImplementedError

    def fields(self, place: Placement) -> Fields:
        """Register values by their names in `compiler.target.isa`, without id and wait."""
        raise NotImplementedError


def checked_accesses(op: Instruction, spec: ChipSpec) -> list[Access]:
    """Its accesses; CompileError when one leaves its buffer, where other data may lie."""
    found = list(op.accesses(spec))
    for access in found:
        if access.stop > access.buffer.type.bytes or access.lane_stop > spec.lanes:
            op.fail(
                f"touches bytes up to {access.stop} in lanes up to {access.lane_stop} of {access.buffer.type}"
            )
    return found


def local_access(buffer: Value, view: View, shape: Shape4, spec: ChipSpec, write: bool) -> Access:
    n, c, h, w = shape
    strides = view.strides or aligned_strides(shape, view.dtype, spec, view.lane)
    rows = -(-(view.lane + c) // spec.lanes)
    last = sum((size - 1) * stride for size, stride in zip((n, rows, h, w), strides, strict=True))
    lanes = (view.lane, view.lane + c) if rows == 1 else (0, spec.lanes)
    return Access(buffer, write, view.offset, view.offset + -(-(last + 1) * view.dtype.bits // 8), *lanes)


def global_access(buffer: Value, view: View, shape: Shape4, write: bool) -> Access:
    piece = view.dtype.bytes
    loops: list[tuple[int, int]] = []
    for stride, size in sorted(zip(view.strides or row_major(shape), shape, strict=True)):
        step = stride * view.dtype.bytes
        if step == piece:
            piece *= size
        elif size > 1:
            loops.append((size, step))
    stop = view.offset + piece + sum((size - 1) * step for size, step in loops)
    return Access(buffer, write, view.offset, stop, loops=tuple(loops))


def any_access(buffer: Value, view: View, shape: Shape4, spec: ChipSpec, write: bool) -> Access:
    if isinstance(buffer.type, GlobalType):
        return global_access(buffer, view, shape, write)
    return local_access(buffer, view, shape, spec, write)


def lane_access(buffer: Value, view: View, lanes: int, row_bytes: int, write: bool) -> Access:
    """The same `row_bytes` in `lanes` consecutive lanes."""
    return Access(buffer, write, view.offset, view.offset + row_bytes, view.lane, view.lane + lanes)


@cache
def axis_names(prefix: str, suffix: str = "") -> tuple[str, ...]:
    """The fields of the four axes, such as `res0_n`."""
    return tuple(f"{prefix}_{axis}{suffix}" for axis in "nchw")


def shape_fields(prefix: str, shape: Shape4) -> Fields:
    return dict(zip(axis_names(prefix), shape, strict=True))


# ---- TIU ----


class TiuOp(Instruction):
    engine = "tiu"


@op("chip.ar")
class ArOp(TiuOp):
    """Element-wise: res = kind(opd0, opd1) over `shape`; a `#chip.const` operand has no buffer.

    round is the rounding mode of cast and the shifts, or the iteration count less one of div; shift is the
    constant third operand: of saturating kinds how far they shift, of selections what they give, or else 0.
    """

    family = "ar"
    KINDS = families.AR

    dst: Operand[LocalType]
    src0: OptionalOperand[LocalType]
    src1: OptionalOperand[LocalType]
    kind: Attr[str]
    shape: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View | Const]
    opd1: OptionalAttr[View | Const]
    shift: OptionalAttr[int]
    round: Attr[int] = 0

    def verify(self) -> None:
        super().verify()
        for buffer, view in ((self.src0, self.opd0), (self.src1, self.opd1)):
            if isinstance(view, View) != (buffer is not None):
                self.fail("takes a buffer with a view, or a constant, for each source")

    def _sources(self) -> Iterator[tuple[str, Value | None, View | Const]]:
        yield "opd0", self.src0, self.opd0
        if self.opd1 is not None:
            yield "opd1", self.src1, self.opd1

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        shape = cast(Shape4, self.shape)
        for _, buffer, view in self._sources():
            if isinstance(view, View):
                assert buffer is not None
                yield local_access(buffer, view, shape, spec, write=False)
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        shape = cast(Shape4, self.shape)
        out = shape_fields("res0", shape) | {
            "opd2_n_str": self.round,
            "tsk_opd_num": 1 + (self.opd1 is not None),
        }
        out |= self._view_fields("res0", self.dst, self.res, place)
        out["opd2_sign"] = int(self.res.dtype.name in SIGNED)
        for name, buffer, view in self._sources():
            out |= self._source_fields(name, buffer, view, place)
        if self.shift is not None:
            out |= {"tsk_opd_num": 3, "opd2_const": 1, "opd2_addr": self.shift & 0xFF}
        return out

    def _source_fields(self, name: str, buffer: Value | None, view: View | Const, place: Placement) -> Fields:
        sign = {f"{name}_sign": int(view.dtype.name in SIGNED)}
        if isinstance(view, Const):
            return sign | {
                f"{name}_const": 1,
                f"{name}_prec": PRECISION[view.dtype.name],
                f"{name}_addr": view.bits,
            }
        assert buffer is not None
        return sign | self._view_fields(name, buffer, view, place)

    def _view_fields(self, name: str, buffer: Value, view: View, place: Placement) -> Fields:
        address = place.tiu(buffer, view)
        out = {f"{name}_prec": PRECISION[view.dtype.name], f"{name}_addr": address}
        aligned = address % place.spec.eu_bytes == 0
        if not view.strides or (aligned and same_layout(view.strides, self.shape, view, place.spec)):
            return out
        out |= zip(axis_names(name, "_str"), view.strides, strict=True)
        out[f"{name}_str"] = isa.STRIDED
        return out


def same_layout(strides: tuple[int, ...], shape: tuple[int, ...], view: View, spec: ChipSpec) -> bool:
    """Whether `strides` are those of the EU-aligned layout of `shape`, but for axes of size 1."""
    return _is_aligned(strides, cast(Shape4, shape), view.dtype, view.lane, spec)


@lru_cache(REMEMBERED)
def _is_aligned(
    strides: tuple[int, ...], shape: Shape4, dtype: ElementType, lane: int, spec: ChipSpec
) -> bool:
    rows = (shape[0], -(-(lane + shape[1]) // spec.lanes), shape[2], shape[3])
    expected = aligned_strides(shape, dtype, spec, lane)
    return all(size == 1 or have == want for size, have, want in zip(rows, strides, expected, strict=True))


@op("chip.select")
class SelectOp(TiuOp):
    """res = (opd0 == opd1) ? opd2 : opd3 over `shape`, and so with > and <.

    opd0 and opd1 are aligned, or one value per lane. One of opd2 and opd3 is the aligned src2, the other a
    `#chip.const`.
    """

    family = "cmp"
    KINDS = families.CMP

    dst: Operand[LocalType]
    src0: Operand[LocalType]
    src1: Operand[LocalType]
    src2: Operand[LocalType]
    kind: Attr[str]
    shape: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View]
    opd1: Attr[View]
    opd2: Attr[View | Const]
    opd3: Attr[View | Const]

    def verify(self) -> None:
        super().verify()
        if isinstance(self.opd2, View) == isinstance(self.opd3, View):
            self.fail("takes a buffer for one of the two that it selects from, and a constant for the other")

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        shape = cast(Shape4, self.shape)
        yield local_access(self.src0, self.opd0, shape, spec, write=False)
        yield local_access(self.src1, self.opd1, shape, spec, write=False)
        for view in (self.opd2, self.opd3):
            if isinstance(view, View):
                yield local_access(self.src2, view, shape, spec, write=False)
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = shape_fields("res0", cast(Shape4, self.shape))
        out |= {"opd0_prec": PRECISION[self.opd0.dtype.name], "opd2_prec": PRECISION[self.res.dtype.name]}
        out |= {"res0_addr": place.tiu(self.dst, self.res), "opd0_sign": 1}
        for name, buffer, view in (("opd0", self.src0, self.opd0), ("opd1", self.src1, self.opd1)):
            out |= {f"{name}_addr": place.tiu(buffer, view), f"{name}_str": 3 if view.strides else 0}
        for name, payload in (("opd2", self.opd2), ("opd3", self.opd3)):
            if isinstance(payload, Const):
                out |= {f"{name}_const": 1, f"{name}_addr": payload.bits}
            else:
                out[f"{name}_addr"] = place.tiu(self.src2, payload)
        return out


@op("chip.matmul")
class MatmulOp(TiuOp):
    """dst [m, n] = left [m, k] x right, plus dst's f32 when `accumulate`; rows lie on the lanes, EU-aligned.

    kind "nn": right is [k, n]; "nt": right is [n, k]. The f32 sum is exact in blocks of `mm_k_block`
    products.
    """

    family = "mm2"

    dst: Operand[LocalType]
    left: Operand[LocalType]
    right: Operand[LocalType]
    kind: Attr[Literal["nn", "nt"]]
    m: Attr[int]
    k: Attr[int]
    n: Attr[int]
    res: Attr[View]
    opd0: Attr[View]
    opd1: Attr[View]
    accumulate: Attr[bool] = False

    def _right_shape(self) -> Shape4:
        return (1, self.k, 1, self.n) if self.kind == "nn" else (1, self.n, 1, self.k)

    def written(self) -> Items:
        return self.dst, self.res, (1, self.m, 1, self.n)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield local_access(self.left, self.opd0, (1, self.m, 1, self.k), spec, write=False)
        yield local_access(self.right, self.opd1, self._right_shape(), spec, write=False)
        dst, view, shape = self.written()
        if self.accumulate:
            yield local_access(dst, View(F32, view.offset, view.lane), shape, spec, write=False)
        yield local_access(dst, view, shape, spec, write=True)

    def fields(self, place: Placement) -> Fields:
        _, rows, _, columns = self._right_shape()
        return {
            "res0_prec": PRECISION[self.res.dtype.name],
            "opd0_prec": PRECISION[self.opd0.dtype.name],
            "opd0_sign": 1,
            "opd1_sign": 1,
            "opd2_const": 1,
            "res_add": int(self.accumulate),
            "res0_c": self.m,
            "res0_w": self.n,
            "opd1_c": rows,
            "opd1_w": columns,
            "res0_addr": place.tiu(self.dst, self.res),
            "opd0_addr": place.tiu(self.left, self.opd0),
            "opd1_addr": place.tiu(self.right, self.opd1),
        }


@op("chip.sfu")
class SfuOp(TiuOp):
    """A function of each item over `shape`, in the EU-aligned layout.

    kind "rsqrt": dst = 1 / sqrt(src) by four Newton steps; "taylor": a polynomial of src, whose `terms`
    coefficients lie in every lane of `table`, constant term first.
    """

    family = "sfu"

    dst: Operand[LocalType]
    src: Operand[LocalType]
    table: OptionalOperand[LocalType]
    kind: Attr[Literal["rsqrt", "taylor"]]
    shape: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View]
    opd1: OptionalAttr[View]
    terms: Attr[int] = 0

    def verify(self) -> None:
        super().verify()
        tabled = (self.table is not None, self.opd1 is not None, self.terms > 0)
        if tabled != (self.kind == "taylor",) * 3:
            self.fail("takes a table with a view and its number of terms if, and only if, it is a taylor")

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        shape = cast(Shape4, self.shape)
        yield local_access(self.src, self.opd0, shape, spec, write=False)
        if self.table is not None and self.opd1 is not None:
            yield lane_access(
                self.table, self.opd1, spec.lanes, self.terms * self.opd1.dtype.bytes, write=False
            )
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = shape_fields("res0", cast(Shape4, self.shape)) | {
            "opd2_n_str": 3 if self.kind == "rsqrt" else 1
        }
        out |= {"res0_prec": PRECISION[self.res.dtype.name], "opd0_prec": PRECISION[self.opd0.dtype.name]}
        out |= {"res0_addr": place.tiu(self.dst, self.res), "opd0_addr": place.tiu(self.src, self.opd0)}
        if self.table is None or self.opd1 is None:
            return out | {"opd1_n": 4}
        return out | {"opd1_n": self.terms, "opd1_addr": place.tiu(self.table, self.opd1)}


@op("chip.pool")
class PoolOp(TiuOp):
    """Reduce windows of `kernel` (h, w) of src (`shape`, EU-aligned f32), stride 1.

    kind "avg": the sum of f32(x * scale), even and odd positions in two accumulators; "max": the largest.
    """

    family = "pord"

    dst: Operand[LocalType]
    src: Operand[LocalType]
    kind: Attr[Literal["avg", "max"]]
    shape: Attr[tuple[int, ...]]
    kernel: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View]
    scale: Attr[float] = 1.0

    def verify(self) -> None:
        super().verify()
        if self.kernel[0] > self.shape[2] or self.kernel[1] > self.shape[3]:
            self.fail(f"kernel {list(self.kernel)} is larger than shape {list(self.shape)}")

    def isa_kind(self) -> str:
        return f"{self.kind}pooling"

    def result_shape(self) -> Shape4:
        n, c, h, w = self.shape
        return n, c, h - self.kernel[0] + 1, w - self.kernel[1] + 1

    def written(self) -> Items:
        return self.dst, self.res, self.result_shape()

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield local_access(self.src, self.opd0, cast(Shape4, self.shape), spec, write=False)
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = shape_fields("res0", self.result_shape())
        out |= {
            "opd0_h": self.shape[2],
            "opd0_w": self.shape[3],
            "opd1_h": self.kernel[0],
            "opd1_w": self.kernel[1],
        }
        out |= {"res0_prec": 2, "opd0_prec": 2, "opd0_sign": 1, "res_op_x_str": 1, "res_op_y_str": 1}
        out |= {"res0_addr": place.tiu(self.dst, self.res), "opd0_addr": place.tiu(self.src, self.opd0)}
        lowest = constant(-3.4028234663852886e38, F32).bits
        fill = 0 if self.kind == "avg" else lowest
        scale = constant(self.scale, F32).bits if self.kind == "avg" else 0
        return out | {
            "opd1_const": 1,
            "opd1_addr": scale,
            "opd3_const": 1,
            "opd3_addr": fill,
            "opd2_n_str": 5,
        }


@op("chip.lanes")
class LanesOp(TiuOp):
    """Move data across lanes; `shape` is the result's.

    kind "cw_ts" and "wc_ts": dst(n, w, h, c) = src(n, c, h, w); "l_copy": dst = src from another
    start lane; "l_bc": channel 0 of src to all channels of dst.
    """

    family = "tsbc"

    dst: Operand[LocalType]
    src: Operand[LocalType]
    kind: Attr[Literal["cw_ts", "wc_ts", "l_copy", "l_bc"]]
    shape: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View]

    def source_shape(self) -> Shape4:
        n, c, h, w = self.shape
        if self.kind in ("cw_ts", "wc_ts"):
            return n, w, h, c
        return (n, 1, h, w) if self.kind == "l_bc" else (n, c, h, w)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield local_access(self.src, self.opd0, self.source_shape(), spec, write=False)
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        _, channels, _, width = self.source_shape()
        out = shape_fields("res0", cast(Shape4, self.shape)) | {"opd0_c": channels, "opd0_w": width}
        out |= {"res0_prec": PRECISION[self.res.dtype.name]}
        return out | {"res0_addr": place.tiu(self.dst, self.res), "opd0_addr": place.tiu(self.src, self.opd0)}


@op("chip.gather")
class GatherOp(TiuOp):
    """dst[n, c, 0, j] = src[n, c, 0, index[j]] over `shape`, inside each lane; dst and src are EU-aligned.

    kind "pl_gather_d1coor": one index for all lanes, item j on lane j mod lanes, packed;
    "pe_s_gather_d1coor": index[n, c, 0, j], EU-aligned, and src has n = 1. `width` is that of src's rows.
    """

    family = "sg"

    dst: Operand[LocalType]
    src: Operand[LocalType]
    index: Operand[LocalType]
    kind: Attr[Literal["pl_gather_d1coor", "pe_s_gather_d1coor"]]
    shape: Attr[tuple[int, ...]]
    width: Attr[int]
    res: Attr[View]
    opd0: Attr[View]
    opd1: Attr[View]

    def _source_shape(self) -> Shape4:
        n, c, _, _ = self.shape
        return (n if self.kind == "pl_gather_d1coor" else 1), c, 1, self.width

    def _index(self) -> Items:
        if self.kind == "pe_s_gather_d1coor":
            return self.index, self.opd1, cast(Shape4, self.shape)
        packed = View(self.opd1.dtype, self.opd1.offset, self.opd1.lane, (0, 1, 0, 0))
        return self.index, packed, (1, self.shape[3], 1, 1)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield local_access(self.src, self.opd0, self._source_shape(), spec, write=False)
        yield local_access(*self._index(), spec, write=False)
        yield local_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = shape_fields("res0", cast(Shape4, self.shape)) | {"opd0_h": 1, "opd0_w": self.width}
        out |= {"res0_addr": place.tiu(self.dst, self.res)}
        for name, buffer, view in (("opd0", self.src, self.opd0), ("opd1", self.index, self.opd1)):
            out |= {f"{name}_addr": place.tiu(buffer, view), f"{name}_prec": PRECISION[view.dtype.name]}
        index = self._index()[2]
        return out | {"res0_prec": PRECISION[self.res.dtype.name], "opd1_c": index[1], "opd1_w": index[3]}


# ---- DMA ----


class DmaOp(Instruction):
    """Base of what the DMA engine does: transfers, and messages between cores."""

    engine = "dma"


class TransferOp(DmaOp):
    """Base of the transfers: they move items, and change none."""

    def verify(self) -> None:
        super().verify()
        result, source = self.attributes["res"].dtype, self.attributes["opd0"].dtype
        if result != source:
            self.fail(f"moves {source} to {result}, and a transfer converts nothing")
        dst, src = (value.type for value in self.operands[:2])
        if isinstance(dst, LocalType) and isinstance(src, LocalType):
            self.fail(f"moves {src} to {dst}, expected one of them in DDR")


@op("chip.dma")
class DmaTensorOp(TransferOp):
    """Copy a strided tensor of `shape` between DDR and local memory, either way; strides in elements.

    kind "copy"; "broadcast": src (n, 1, h, w) to the `shape`'s c lanes of dst.
    """

    family = "dma_tensor"

    dst: Operand[BufferType]
    src: Operand[BufferType]
    kind: Attr[Literal["copy", "broadcast"]]
    shape: Attr[tuple[int, ...]]
    res: Attr[View]
    opd0: Attr[View]

    def source_shape(self) -> Shape4:
        n, c, h, w = self.shape
        return n, (1 if self.kind == "broadcast" else c), h, w

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield any_access(self.src, self.opd0, self.source_shape(), spec, write=False)
        yield any_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = {"stride_enable": 1, "nchw_copy": 1, "src_data_format": PRECISION[self.opd0.dtype.name]}
        ends = (
            ("src", self.src, self.opd0, self.source_shape()),
            ("dst", self.dst, self.res, cast(Shape4, self.shape)),
        )
        for name, buffer, view, shape in ends:
            strides = view.strides or default_strides(buffer, view, shape, place.spec)
            out |= zip(axis_names(name, "size"), shape, strict=True)
            out |= zip(axis_names(name, "stride"), strides, strict=True)
            out |= split_address(name, place.dma(buffer, view))
        return out


def default_strides(buffer: Value, view: View, shape: Shape4, spec: ChipSpec) -> tuple[int, ...]:
    if isinstance(buffer.type, GlobalType):
        return row_major(shape)
    return aligned_strides(shape, view.dtype, spec, view.lane)


@op("chip.dma_matrix")
class DmaMatrixOp(TransferOp):
    """Copy a row-major matrix of `rows` x `columns` items between DDR and local memory, either way.

    Column block j, `block` items wide, lies in lane j mod lanes. row_stride is the DDR side's, in items;
    n_stride and c_stride are the local side's, per row and per row of lanes.
    """

    family = "dma_matrix"

    dst: Operand[BufferType]
    src: Operand[BufferType]
    rows: Attr[int]
    columns: Attr[int]
    block: Attr[int]
    row_stride: Attr[int]
    n_stride: Attr[int]
    c_stride: Attr[int]
    res: Attr[View]
    opd0: Attr[View]

    def isa_kind(self) -> str:
        return "copy"

    def _blocks(self) -> int:
        return -(-self.columns // self.block)

    def written(self) -> Items:
        return self._items(self.dst, self.res)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield any_access(*self._items(self.src, self.opd0), spec, write=False)
        yield any_access(*self.written(), spec, write=True)

    def _items(self, buffer: Value, view: View) -> Items:
        """The matrix in one of the memories: by rows in DDR, by rows of blocks in local memory."""
        if isinstance(buffer.type, GlobalType):
            rows = View(view.dtype, view.offset, 0, (0, self.row_stride, 0, 1))
            return buffer, rows, (1, self.rows, 1, self.columns)
        blocks = View(view.dtype, view.offset, view.lane, (self.n_stride, self.c_stride, 0, 1))
        return buffer, blocks, (self.rows, self._blocks(), 1, self.block)

    def fields(self, place: Placement) -> Fields:
        out = {"stride_enable": 1, "src_data_format": PRECISION[self.opd0.dtype.name]}
        for name, buffer, view in (("src", self.src, self.opd0), ("dst", self.dst, self.res)):
            out |= split_address(name, place.dma(buffer, view)) | self._side(name, buffer)
        return out

    def _side(self, name: str, buffer: Value) -> Fields:
        if isinstance(buffer.type, GlobalType):
            return {
                f"{name}_hsize": self.rows,
                f"{name}_wsize": self.columns,
                f"{name}_hstride": self.row_stride,
            }
        sizes = {f"{name}_nsize": self.rows, f"{name}_csize": self._blocks(), f"{name}_wsize": self.block}
        return sizes | {f"{name}_nstride": self.n_stride, f"{name}_cstride": self.c_stride}


@op("chip.dma_gather")
class DmaGatherOp(TransferOp):
    """dst[c, i, :] = table[index[c, i], :]: rows of `width` items of a DDR table.

    shape is (channels, rows per channel). index_stride is the index's channel stride in items, 0 for an index
    that all channels share; dst strides are per channel (lane row in local memory) and per row. Each channel
    has a table of its own where `table_stride`, from one to the next, is not 0; `row_stride` is that of a
    table's rows, 0 for those that follow each other.
    """

    family = "dma_gather"

    dst: Operand[BufferType]
    table: Operand[GlobalType]
    index: Operand[GlobalType]
    channels: Attr[int]
    rows: Attr[int]
    table_rows: Attr[int]
    width: Attr[int]
    index_stride: Attr[int]
    c_stride: Attr[int]
    table_stride: Attr[int] = 0
    row_stride: Attr[int] = 0
    res: Attr[View]
    opd0: Attr[View]
    opd1: Attr[View]

    def isa_kind(self) -> str:
        return "copy"

    def written(self) -> Items:
        rows = View(self.res.dtype, self.res.offset, self.res.lane, (0, self.c_stride, self.width, 1))
        return self.dst, rows, (1, self.channels, self.rows, self.width)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        view = replace(self.opd0, strides=(0, self.table_stride, self.row_stride or self.width, 1))
        yield global_access(self.table, view, (1, self.channels, self.table_rows, self.width), write=False)
        index = View(UI32, self.opd1.offset, 0, (0, self.index_stride, 1, 0))
        yield global_access(self.index, index, (1, self.channels, self.rows, 1), write=False)
        yield any_access(*self.written(), spec, write=True)

    def fields(self, place: Placement) -> Fields:
        out = {"stride_enable": 1, "src_data_format": PRECISION[self.opd0.dtype.name]}
        out |= {"src_csize": self.channels, "src_hsize": self.table_rows, "src_wsize": self.width}
        out |= {"src_cstride": self.table_stride, "src_hstride": self.row_stride or self.width}
        out |= {"index_hstride": 1}
        out |= {"dst_cstride": self.c_stride, "dst_hstride": self.width, "dst_hsize": self.rows}
        out |= {"dst_csize": self.channels, "dst_wsize": self.width}
        out |= {"index_csize": self.channels, "index_hsize": self.rows, "index_cstride": self.index_stride}
        for name, buffer, view in (
            ("src", self.table, self.opd0),
            ("dst", self.dst, self.res),
            ("index", self.index, self.opd1),
        ):
            out |= split_address(name, place.dma(buffer, view))
        return out


@op("chip.dma_scatter")
class DmaScatterOp(TransferOp):
    """table[index[i], :] = src[i, :]: `rows` of `width` items to rows of a DDR table, in any order.

    The rows follow each other, in DDR or on one lane. Rows of the table that no index names stay what they
    are, and indices outside of it are passed over.
    """

    family = "dma_scatter"

    dst: Operand[GlobalType]
    src: Operand[BufferType]
    index: Operand[GlobalType]
    rows: Attr[int]
    table_rows: Attr[int]
    width: Attr[int]
    res: Attr[View]
    opd0: Attr[View]
    opd1: Attr[View]

    def isa_kind(self) -> str:
        return "copy"

    def written(self) -> Items:
        return self.dst, self.res, (1, 1, self.table_rows, self.width)

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield any_access(self.src, self.opd0, (1, 1, self.rows, self.width), spec, write=False)
        index = View(UI32, self.opd1.offset, 0, (0, 0, 1, 0))
        yield global_access(self.index, index, (1, 1, self.rows, 1), write=False)
        yield global_access(*self.written(), write=True)

    def fields(self, place: Placement) -> Fields:
        out = {"stride_enable": 1, "src_data_format": PRECISION[self.opd0.dtype.name]}
        out |= {"src_csize": 1, "src_hsize": self.rows, "src_wsize": self.width, "src_hstride": self.width}
        out |= {"src_cstride": self.rows * self.width, "dst_cstride": self.table_rows * self.width}
        out |= {"dst_csize": 1, "dst_hsize": self.table_rows, "dst_wsize": self.width}
        out |= {"dst_hstride": self.width, "index_csize": 1, "index_hsize": self.rows, "index_hstride": 1}
        for name, buffer, view in (
            ("src", self.src, self.opd0),
            ("dst", self.dst, self.res),
            ("index", self.index, self.opd1),
        ):
            out |= split_address(name, place.dma(buffer, view))
        return out


# ---- between cores ----


class MessageOp(DmaOp):
    """Base of the two halves of a meeting of cores: each sends `message` once, then waits until `count` have.

    Only the DMA touches DDR, and works in order: what it stored before it sends is there, and what it loads
    behind a wait is read then. No compute instruction takes part. Once all have waited a message may be sent
    anew; so meetings that follow each other use two of them in turn.

    Source: sDMA_sys of the BM1688 register tables, kinds 3 and 4.
    """

    family = "dma_sys"

    message: Attr[int]
    count: Attr[int]

    def verify(self) -> None:
        super().verify()
        if not 0 <= self.message <= MAX_MESSAGE:
            self.fail(f"message is {self.message}, expected 0 to {MAX_MESSAGE}")
        if not 2 <= self.count <= MAX_MESSAGE:
            self.fail(f"count is {self.count}, expected 2 to {MAX_MESSAGE} cores")

    def _all_of(self, regions: Iterable[Value], write: bool) -> Iterator[Access]:
        for region in regions:
            yield Access(region, write, 0, region.type.bytes)

    def fields(self, place: Placement) -> Fields:
        return {"constant_value": self.count << 8 | self.message}


@op("chip.send")
class SendOp(MessageOp):
    """Tell the other cores that what this one stored to the regions `published` is there."""

    published: VariadicOperand[GlobalType]

    def isa_kind(self) -> str:
        return "send"

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield from self._all_of(self.published, write=False)


@op("chip.wait")
class WaitOp(MessageOp):
    """Go on once all have sent: then what they stored to the regions `awaited` is there."""

    awaited: VariadicOperand[GlobalType]

    def isa_kind(self) -> str:
        return "wait"

    def accesses(self, spec: ChipSpec) -> Iterator[Access]:
        yield from self._all_of(self.awaited, write=True)
