"""Matrix products: rows of the left operand and the result on the same lanes, the right one read by all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from math import prod
from typing import TypeGuard

from compiler.ir.core import Op, Value
from compiler.ir.types import F32, I8, I16, UI4, UI8, ElementType, TensorType
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile
from dialects import chip, tensor
from dialects.tensor import Lanes, PackedType
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import CannotView, Placed


def tile_of(packed: PackedType, spec: ChipSpec) -> Tile:
    """How a packed tile lies in the DDR of a chip."""
    stored = packed.scheme or packed.element
    return Tile(packed.rows, packed.columns, stored, spec.lanes, spec.eu_bytes, neighbours(packed, spec))


def neighbours(packed: PackedType, spec: ChipSpec) -> bool:
    """Whether a byte has the codes of two columns side by side, as a chip with 4-bit items reads them."""
    return packed.scheme is not None and packed.scheme.bits == 4 and spec.native_int4


@lowers(tensor.DequantizeOp)
def dequantize(low: Lowering, op: Op) -> None:
    """(code - zero) * scale: codes (bytes, where the chip has no 4-bit items) less the zero points, to 16
    bit, times the scales.

    Scales of another type than the weight's are multiplied in f32: the unit does not mix types, nor cast from
    one type of 16 bits to another. So is code * scale where a minimum is added, to round once.
    """
    packed, source = op.operands[0].type, low.get(op.operands[0])
    assert isinstance(packed, PackedType)
    if packed.scheme is None:
        tile = tile_of(packed, low.spec)
        shape, strides = (tile.rows, tile.columns), (tile.pitch, 1)
        low.put(op, replace(source, dtype=packed.element, shape=shape, strides=strides))
        return
    low.put(op, low.emit.repeat(dequantized, source, packed=packed, type_=op.results[0].type))


def dequantized(emit: Emitter, source: Placed, packed: PackedType, type_: TensorType) -> Placed:
    tile, scheme = tile_of(packed, emit.spec), packed.scheme
    assert scheme is not None
    scale = scheme.scale
    groups = (tile.lanes, tile.slots * tile.groups, scheme.group)
    each = (*groups[:2], 1)
    common = scale if scale == packed.element and not scheme.minimum else F32
    wide = emit.cast(emit.new(groups, common, Lanes(0)), steps_from_zero(emit, tile, scheme, source, groups))
    scales = section(source, scale, tile.scales_offset, each)
    whole = emit.of_type(type_)
    if common == scale:
        rows, codes, scales = (rows_of_groups(x, tile) for x in (rows_in_lanes(whole, tile), wide, scales))
        emit.ar("mul", rows, codes, scales)
        return whole
    emit.ar("mul", wide, wide, widened(emit, scales))
    if scheme.minimum:
        minimums = section(source, scale, tile.minimums_offset, each)
        emit.ar("add", wide, wide, widened(emit, minimums))
    emit.cast(rows_in_lanes(whole, tile), wide.reshape((tile.lanes, tile.slots, tile.columns), 0))
    return whole


def widened(emit: Emitter, x: Placed) -> Placed:
    return emit.cast(emit.new(x.shape, F32, Lanes(0)), x)


def steps_from_zero(
    emit: Emitter, tile: Tile, scheme: Scheme, source: Placed, groups: tuple[int, int, int]
) -> Placed:
    """Codes less zero points, integers in [lanes, groups, group]; of 16 bits where bytes do not hold them."""
    codes = codes_of(emit, tile, scheme, source).reshape(groups, 0)
    if scheme.signed or scheme.minimum:
        return codes
    zeros: Placed | float = float(scheme.implied_zero)
    if scheme.zeros:
        zeros = section(source, UI8, tile.zeros_offset, (*groups[:2], 1))
    steps = emit.new(groups, I8 if tile.bits == 4 else I16, Lanes(0))
    return emit.ar("sub", steps, codes, zeros, constant_type=UI8)


def codes_of(emit: Emitter, tile: Tile, scheme: Scheme, source: Placed) -> Placed:
    """Codes as arithmetic takes them, [lanes, slots, columns]: as they lie, if it can.

    A row of 4-bit items must begin on a whole byte, which groups of an odd size do not.
    """
    shape = (tile.lanes, tile.slots, tile.columns)
    if tile.bits == 8:
        return section(source, I8 if scheme.signed else UI8, tile.codes_offset, shape)
    if not tile.neighbours:
        return halves(emit, tile, source)
    codes = section(source, UI4, tile.codes_offset, shape)
    return emit.cast(emit.new(shape, UI8, Lanes(0)), codes) if scheme.group % 2 else codes


def halves(emit: Emitter, tile: Tile, source: Placed) -> Placed:
    """Codes of 4 bits in bytes of their own, [lanes, slots, columns]."""
    half = tile.columns // 2
    part = (tile.lanes, tile.slots, half)
    nibbles = section(source, UI8, tile.codes_offset, part)
    spread = emit.new((tile.lanes, tile.slots, tile.columns), UI8, Lanes(0))
    emit.ar("and", spread.slice((0, 0, 0), part), nibbles, 15.0)
    emit.ar("ashift", spread.slice((0, 0, half), part), nibbles, -4.0, constant_type=I8, round=3)
    return spread


def section(source: Placed, dtype: ElementType, offset: int, shape: tuple[int, int, int]) -> Placed:
    """A part of a packed run as [lanes, rows, width], one row after the other in a lane."""
    strides = (0, shape[2], 1)
    return Placed(source.buffer, dtype, shape, strides, 0, source.lanes, source.offset + offset)


def rows_in_lanes(whole: Placed, tile: Tile) -> Placed:
    """A matrix [rows, columns], rows over the lanes, as [lanes, slots, columns]."""
    return replace(
        whole, shape=(tile.lanes, tile.slots, tile.columns), strides=(0, whole.strides[0], 1), axis=0
    )


def rows_of_groups(x: Placed, tile: Tile) -> Placed:
    """What a tile has of each weight, or of each group, as [lanes, slots, groups, ..]."""
    width = prod(x.shape[1:]) // (tile.slots * tile.groups)
    return x.reshape((tile.lanes, tile.slots, tile.groups, width), 0)


@lowers(tensor.LinearOp)
def linear(low: Lowering, op: Op) -> None:
    assert isinstance(op, tensor.LinearOp)
    x, w = low.get(op.x), low.get(op.w)
    res, accumulate = destination(low, op)
    if x.axis == len(x.shape) - 1:
        column = as_column(low, x), as_column(low, res)
        emit_matmul(low.emit, "nn", column[1], w, column[0], accumulate)
        return
    low.emit.repeat(products, res, x, w, kind="nt", accumulate=accumulate)


def destination(low: Lowering, op: tensor.LinearOp | tensor.MatmulOp) -> tuple[Placed, bool]:
    """Where the sum is built, and whether on what is there: then this must be its accumulator's last use."""
    start = op.accumulator
    if start is None:
        return low.result(op), False
    later = [user for user in start.users if user is not op and op.is_before(user)]
    if later:
        op.fail(f"overwrites its accumulator, which {later[0].opname} still reads")
    low.set(op.results[0], low.get(start))
    return low.get(start), True


def as_column(low: Lowering, x: Placed) -> Placed:
    """A vector [.., n] over the lanes as the matrix [n, 1], one item in each EU-wide slot."""
    assert x.axis is not None
    slot = low.spec.eu_items(x.dtype.bytes)
    require(x.strides[x.axis] == slot or x.lane_rows == 1, f"{list(x.shape)} does not lie in slots")
    return replace(x, shape=(x.shape[x.axis], 1), strides=(slot, 1), axis=0)


@lowers(tensor.MatmulOp)
def matmul(low: Lowering, op: Op) -> None:
    assert isinstance(op, tensor.MatmulOp)
    a, b = low.get(op.a), right_matrix(low, op.b)
    res, accumulate = destination(low, op)
    low.emit.repeat(products, res, a, b, kind="nt" if op.transpose_b else "nn", accumulate=accumulate)


def products(emit: Emitter, res: Placed, a: Placed, b: Placed, kind: str, accumulate: bool) -> Placed:
    """Of each matrix in [.., m, k] with b."""
    for left, result in matrices(emit.spec, a, res):
        emit_matmul(emit, kind, result, left, b, accumulate)
    return res


def row_sums(low: Lowering, x: Placed, res: Placed) -> None:
    """The sum of each row of 16 bit, in f32: its product with a column of ones."""
    low.emit.repeat(products, res, x, ones(low, x.shape[-1], x.dtype), kind="nn", accumulate=False)


def ones(low: Lowering, count: int, dtype: ElementType) -> Placed:
    """[count, 1], the first of a column that is filled once, for the longest row of the function."""
    if dtype not in low.ones:
        longest = max(sum_.x.type.shape[-1] for sum_ in low.block.ops if is_sum_of(sum_, dtype))
        low.ones[dtype] = low.emit.fill(low.emit.new((longest, 1), dtype, Lanes(0)), 1.0)
    return low.ones[dtype].slice((0, 0), (count, 1))


def is_sum_of(op: Op, dtype: ElementType) -> TypeGuard[tensor.ReduceOp]:
    return isinstance(op, tensor.ReduceOp) and op.x.type.element == dtype


def right_matrix(low: Lowering, value: Value) -> Placed:
    """A right operand as the unit reads it, from lane 0 on and without gaps; copied if it lies otherwise."""
    found = low.get(value)
    if found.lane:
        rows, columns = found.shape
        return low.emit.lanes("l_copy", low.emit.of_type(value.type), found, (1, rows, 1, columns))
    return found if is_matrix(low.spec, found) else low.emit.cast(low.emit.of_type(value.type), found)


def matrices(spec: ChipSpec, left: Placed, result: Placed) -> Iterator[tuple[Placed, Placed]]:
    """Cut [.., m, k] and [.., m, n] into matrices whose rows of lanes lie one pitch apart in both."""
    joined, joined_result = with_rows_joined(spec, left), with_rows_joined(spec, result)
    if joined is not None and joined_result is not None:
        yield joined, joined_result
        return
    *lead, rows, _ = left.shape
    for index in product(*(range(size) for size in lead)):
        pair = [matrix_at(x, index) for x in (left, result)]
        if all(is_matrix(spec, x) for x in pair):
            yield pair[0], pair[1]
            continue
        start = 0
        while start < rows:
            count = min(spec.lanes - (left.lane + start) % spec.lanes, rows - start)
            yield (
                pair[0].slice((start, 0), (count, left.shape[-1])),
                pair[1].slice((start, 0), (count, result.shape[-1])),
            )
            start += count


def with_rows_joined(spec: ChipSpec, x: Placed) -> Placed | None:
    """[.., m, k] as one matrix, where each of those there are fills whole rows of lanes and lies behind the
    one before it.
    """
    *lead, rows, columns = x.shape
    if x.lane or rows % x.lanes or x.axis != len(lead):
        return None
    sizes, strides = [*lead, rows // x.lanes], x.strides[:-1]
    wide = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size > 1]
    for (_, outer), (size, inner) in pairwise(wide):
        if outer != size * inner:
            return None
    pitch = wide[-1][1] if wide else columns
    whole = replace(x, shape=(prod(lead) * rows, columns), strides=(pitch, x.strides[-1]), axis=0)
    return whole if is_matrix(spec, whole) else None


def matrix_at(x: Placed, index: tuple[int, ...]) -> Placed:
    one = x.slice((*index, 0, 0), (*(1 for _ in index), *x.shape[-2:]))
    return one.reshape(x.shape[-2:], 0)


def is_matrix(spec: ChipSpec, x: Placed) -> bool:
    """Whether it begins on an EU width and its rows of lanes lie at the pitch of matrix operands."""
    pitch = round_up(x.shape[1], spec.eu_items(x.dtype.bytes))
    return x.offset % spec.eu_bytes == 0 and (x.lane_rows == 1 or x.strides[0] == pitch)


def require(holds: bool, reason: str) -> None:
    """Refuse operands that the matrix unit would read in another order than they lie."""
    if not holds:
        raise CannotView(reason)


def emit_matmul(emit: Emitter, kind: str, res: Placed, left: Placed, right: Placed, accumulate: bool) -> None:
    m, k, n = left.shape[0], left.shape[1], res.shape[1]
    require(left.lane == res.lane, "the left operand and the result start on different lanes")
    require(right.lane == 0, "the right operand does not start on lane 0")
    require(right.axis == 0 and left.axis == 0 and res.axis == 0, "rows do not lie over the lanes")
    require(all(x.strides[1] == 1 or x.shape[1] == 1 for x in (res, left, right)), "columns with gaps")
    require(is_matrix(emit.spec, right), f"{list(right.shape)} is not laid out as a matrix")
    require(right.shape == ((k, n) if kind == "nn" else (n, k)), f"{list(right.shape)} for k={k} n={n}")
    emit.add(
        chip.MatmulOp(
            res.buffer,
            left.buffer,
            right.buffer,
            kind=kind,
            m=m,
            k=k,
            n=n,
            res=res.view(()),
            opd0=left.view(()),
            opd1=right.view(()),
            accumulate=accumulate,
        )
    )
