"""Packed weights to matrices of 16 bit: a whole tile, or one part of it after the other where it is large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from compiler.ir.core import Op, Value
from compiler.ir.types import F32, I8, I16, UI4, UI8, ElementType
from compiler.target.spec import ChipSpec
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile
from dialects import tensor
from dialects.tensor import Lanes, PackedType
from passes.ranges import Range, even_ranges
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import Placed


def tile_of(packed: PackedType, spec: ChipSpec) -> Tile:
    """How a packed tile lies in the DDR of a chip."""
    stored = packed.scheme or packed.element
    return Tile(packed.rows, packed.columns, stored, spec.lanes, spec.eu_bytes, neighbours(packed, spec))


def neighbours(packed: PackedType, spec: ChipSpec) -> bool:
    """Whether a byte has the codes of two columns side by side, as a chip with 4-bit items reads them."""
    return packed.scheme is not None and packed.scheme.bits == 4 and spec.native_int4


@lowers(tensor.DequantizeOp)
def dequantize(low: Lowering, op: Op) -> None:
    """All of it, unless the product that it is for takes it in parts."""
    assert isinstance(op, tensor.DequantizeOp)
    packed, source = op.packed.type, low.get(op.packed)
    tile = tile_of(packed, low.spec)
    if packed.scheme is None:
        shape, strides = (tile.rows, tile.columns), (tile.pitch, 1)
        low.put(op, replace(source, dtype=packed.element, shape=shape, strides=strides))
    elif len(ranges_of(low, op)) == 1:
        low.put(op, unpacked(low, op, Range(0, tile.slots)))


def parts_of_weight(low: Lowering, w: Value) -> Iterator[tuple[int, Placed]]:
    """The rows [n, k] to multiply by, and which is their first: all, or one part after the other."""
    op = w.defining(tensor.DequantizeOp)
    ranges = ranges_of(low, op) if op is not None else []
    if op is None or len(ranges) < 2:
        yield 0, low.get(w)
        return
    for slots in ranges:
        yield slots.start * low.spec.lanes, unpacked(low, op, slots)


def unpacked(low: Lowering, op: tensor.DequantizeOp, slots: Range) -> Placed:
    return low.emit.repeat(dequantized, low.get(op.packed), packed=op.packed.type, slots=slots)


def dequantized(emit: Emitter, source: Placed, packed: PackedType, slots: Range) -> Placed:
    """Some rows of lanes of a tile."""
    assert packed.scheme is not None
    return Part(emit, tile_of(packed, emit.spec), packed.scheme, packed.element, source, slots).dequantized()


def ranges_of(low: Lowering, op: tensor.DequantizeOp) -> list[Range]:
    """The rows of lanes that are unpacked at a time: all, unless they are many, for one product."""
    tile = tile_of(op.packed.type, low.spec)
    apart = op.w.has_one_use() and isinstance(op.w.users[0], tensor.LinearOp) and op.w not in low.wanted
    if tile.scheme is None or not apart:
        return [Range(0, tile.slots)]
    return list(even_ranges(tile.slots, 1, low.part_bytes // (2 * tile.pitch)))


@dataclass(frozen=True)
class Part:
    """Some rows of lanes of a tile of codes, in local memory."""

    emit: Emitter
    tile: Tile
    scheme: Scheme
    element: ElementType  # of the matrix
    source: Placed
    slots: Range

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Lanes, rows of lanes, columns."""
        return self.tile.lanes, self.slots.size, self.tile.columns

    @cached_property
    def groups(self) -> tuple[int, int, int]:
        """Lanes, groups of all rows of a lane, columns of a group."""
        return self.tile.lanes, self.slots.size * self.tile.groups, self.scheme.group

    def dequantized(self) -> Placed:
        """(code - zero) * scale: codes (bytes, where the chip has no 4-bit items) less the zero points, to 16
        bit, times the scales.

        Scales of another type than the weight's are multiplied in f32: the unit does not mix types, nor cast
        from one type of 16 bits to another. So is code * scale where a minimum is added, to round once.
        """
        tile, scheme, emit = self.tile, self.scheme, self.emit
        common = scheme.scale if scheme.scale == self.element and not scheme.minimum else F32
        wide = emit.cast(emit.new(self.groups, common, Lanes(0)), self.steps_from_zero())
        scales = self.of_groups(scheme.scale, tile.scales_offset)
        rows = min(tile.rows, self.slots.stop * tile.lanes) - self.slots.start * tile.lanes
        whole = emit.new((rows, tile.columns), self.element, Lanes(0))
        if common == scheme.scale:
            emit.ar("mul", *(self.in_groups(x) for x in (self.in_lanes(whole), wide, scales)))
            return whole
        emit.ar("mul", wide, wide, self.widened(scales))
        if scheme.minimum:
            minimums = self.of_groups(scheme.scale, tile.minimums_offset)
            emit.ar("add", wide, wide, self.widened(minimums))
        emit.cast(self.in_lanes(whole), wide.reshape(self.shape, 0))
        return whole

    def widened(self, x: Placed) -> Placed:
        return self.emit.cast(self.emit.new(x.shape, F32, Lanes(0)), x)

    def steps_from_zero(self) -> Placed:
        """Codes less zero points, integers by groups; of 16 bits where bytes do not hold them."""
        codes = self.codes().reshape(self.groups, 0)
        if self.scheme.signed or self.scheme.minimum:
            return codes
        zeros: Placed | float = float(self.scheme.implied_zero)
        if self.scheme.zeros:
            zeros = self.of_groups(UI8, self.tile.zeros_offset)
        steps = self.emit.new(self.groups, I8 if self.tile.bits == 4 else I16, Lanes(0))
        return self.emit.ar("sub", steps, codes, zeros, constant_type=UI8)

    def codes(self) -> Placed:
        """As arithmetic takes them, [lanes, rows of lanes, columns]: as they lie, if it can.

        A row of 4-bit items must begin on a whole byte, which groups of an odd size do not.
        """
        offset = self.tile.codes_offset
        if self.tile.bits == 8:
            return self.section(I8 if self.scheme.signed else UI8, offset, self.tile.columns)
        if not self.tile.neighbours:
            return self.halves()
        codes, emit = self.section(UI4, offset, self.tile.columns), self.emit
        return emit.cast(emit.new(self.shape, UI8, Lanes(0)), codes) if self.scheme.group % 2 else codes

    def halves(self) -> Placed:
        """Codes of 4 bits in bytes of their own, [lanes, rows of lanes, columns]."""
        emit, half = self.emit, self.tile.columns // 2
        nibbles = self.section(UI8, self.tile.codes_offset, half)
        spread = emit.new(self.shape, UI8, Lanes(0))
        emit.ar("and", spread.slice((0, 0, 0), nibbles.shape), nibbles, 15.0)
        upper = spread.slice((0, 0, half), nibbles.shape)
        emit.ar("ashift", upper, nibbles, -4.0, constant_type=I8, round=3)
        return spread

    def of_groups(self, dtype: ElementType, offset: int) -> Placed:
        """A number of each group, [lanes, groups, 1]."""
        return self.section(dtype, offset, self.tile.groups).reshape((*self.groups[:2], 1), 0)

    def section(self, dtype: ElementType, offset: int, width: int) -> Placed:
        """`width` items of each row of a section of the run, [lanes, rows of lanes, width]."""
        start = self.source.offset + offset + self.slots.start * width * dtype.bits // 8
        shape = (self.tile.lanes, self.slots.size, width)
        return Placed(self.source.buffer, dtype, shape, (0, width, 1), 0, self.source.lanes, start)

    def in_lanes(self, whole: Placed) -> Placed:
        """A matrix [rows, columns], rows over the lanes, as [lanes, rows of lanes, columns]."""
        return replace(whole, shape=self.shape, strides=(0, whole.strides[0], 1), axis=0)

    def in_groups(self, x: Placed) -> Placed:
        """What there is of each weight, or of each group, as [lanes, rows of lanes, groups, ..]."""
        width = prod(x.shape[1:]) // (self.slots.size * self.tile.groups)
        return x.reshape((self.tile.lanes, self.slots.size, self.tile.groups, width), 0)
