"""Data movement: renaming that costs nothing, DMA to and from DDR, and moves across lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from compiler.ir.core import Op
from compiler.ir.types import I32, UI8, TensorType
from dialects import chip, tensor
from dialects.tensor import Lanes, PackedType, Replicated, axis_over_lanes
from dialects.weights import Indices, Iota, Joined, Packed, RopeTable, Table
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.dequantize import tile_of
from passes.tensor_to_chip.emitter import MAX_ITEMS
from passes.tensor_to_chip.placed import CannotView, Placed

# ---- renaming ----


@lowers(tensor.SliceOp)
def slice_(low: Lowering, op: tensor.SliceOp) -> None:
    """A part of a vector that begins within a row of lanes is moved to the first lane, as all vectors are."""
    part = low.get(op.x).slice(op.starts, op.sizes)
    if part.lane and tensor.is_vector(op.x.type) and op.y.users:
        low.emit.move_lanes(low.result(op), part)
    else:
        low.put(op, part)


@lowers(tensor.PermuteOp)
def permute(low: Lowering, op: tensor.PermuteOp) -> None:
    low.put(op, low.get(op.x).permute(op.order))


@lowers(tensor.ReshapeOp)
def reshape(low: Lowering, op: tensor.ReshapeOp) -> None:
    """A view, or one of a copy in which the axes follow each other as they are named."""
    type_, source = op.results[0].type, low.get(op.x)
    try:
        view = source.reshape(type_.shape, axis_over_lanes(type_))
    except CannotView:
        if source.in_ddr:
            raise
        copy = low.emit.cast(low.emit.of_type(op.x.type), source)
        view = copy.reshape(type_.shape, axis_over_lanes(type_))
    low.put(op, view)


@lowers(tensor.BroadcastOp)
def broadcast(low: Lowering, op: tensor.BroadcastOp) -> None:
    """Copies that read an item again and again; an item for all lanes goes to each of them first."""
    x, res = low.get(op.x), low.result(op)
    if res.axis != x.axis and x.axis is not None:
        x = in_all_lanes(low, x)
    elif res.axis is not None and x.axis is not None and x.shape[x.axis] != res.shape[res.axis]:
        x = in_all_lanes(low, x)
    low.emit.cast(res, x)


def in_all_lanes(low: Lowering, x: Placed) -> Placed:
    """What one lane holds, in every lane."""
    emit, count = low.emit, prod(x.shape)
    row = replace(emit.new((1, count), x.dtype, Lanes(0)), lane=x.lane)
    emit.cast(replace(row, shape=x.shape, strides=packed_strides(x.shape), axis=x.axis), x)
    everywhere = emit.new(x.shape, x.dtype, Replicated())
    emit.lanes("l_bc", everywhere, row, (1, low.spec.lanes, 1, count))
    return everywhere


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Of items that follow each other in row-major order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


@lowers(tensor.ConcatOp)
def concat(low: Lowering, op: tensor.ConcatOp) -> None:
    """Parts that could not be produced in place are copied."""
    whole = low.result(op)
    start = 0
    for part in op.operands:
        source = low.get(part)
        starts = [start if axis == op.axis else 0 for axis in range(len(source.shape))]
        start += source.shape[op.axis]
        target = whole.slice(starts, source.shape)
        if target.lane != source.lane:
            low.emit.move_lanes(target, source)
        elif not target.same_place(source):
            low.emit.cast(target, source)


@lowers(tensor.PadOp)
def pad(low: Lowering, op: tensor.PadOp) -> None:
    whole, source = low.result(op), low.get(op.x)
    width = source.shape[-1]
    zeros = [0] * len(source.shape)
    target = whole.slice(zeros, source.shape)
    if not target.same_place(source):
        low.emit.cast(target, source)
    tail = whole.slice((*zeros[:-1], width), (*source.shape[:-1], whole.shape[-1] - width))
    if tail.shape[-1]:
        low.emit.fill(tail, op.value)


# ---- DDR ----


@lowers(tensor.WeightOp)
def weight(low: Lowering, op: tensor.WeightOp) -> None:
    type_ = op.results[0].type
    source = Joined(tuple(op.sources), type_.element)
    low.set(op.results[0], low.row_major(low.emit.weight(source, type_.bytes), type_))


@lowers(tensor.RopeTableOp)
def rope_table(low: Lowering, op: tensor.RopeTableOp) -> None:
    type_ = op.results[0].type
    buffer = low.emit.weight(RopeTable(op.cos, op.sin, op.mode, op.columns), type_.bytes)
    low.set(op.results[0], low.row_major(buffer, type_))


@lowers(tensor.IndicesOp)
def indices(low: Lowering, op: tensor.IndicesOp) -> None:
    type_ = op.results[0].type
    low.set(op.results[0], low.row_major(low.emit.weight(Indices(op.source), type_.bytes), type_))


@lowers(tensor.TableOp)
def table(low: Lowering, op: tensor.TableOp) -> None:
    type_ = op.results[0].type
    low.set(op.results[0], low.row_major(low.emit.weight(Table(op.name), type_.bytes), type_))


@lowers(tensor.IotaOp)
def iota(low: Lowering, op: tensor.IotaOp) -> None:
    type_ = op.results[0].type
    low.set(op.results[0], low.row_major(low.emit.weight(Iota(type_.size, op.step), type_.bytes), type_))


@lowers(tensor.PackedWeightOp)
def packed_weight(low: Lowering, op: tensor.PackedWeightOp) -> None:
    type_ = op.results[0].type
    assert isinstance(type_, PackedType)
    tile = tile_of(type_, low.spec)
    pieces = 1
    while tile.total_bytes // 4 > MAX_ITEMS * pieces:
        pieces *= 2
    source = Packed(tuple(op.sources), op.row, op.column, tile, op.each, pieces, op.experts)
    buffer = low.emit.weight(source, source.total_bytes)
    shape: tuple[int, ...] = (pieces, tile.lanes, tile.run_bytes // pieces)
    if op.experts:
        shape = (op.experts, *shape)
    low.set(op.results[0], low.row_major(buffer, TensorType(shape, UI8)))


@lowers(tensor.LoadOp)
def load(low: Lowering, op: tensor.LoadOp) -> None:
    source, type_ = low.get(op.operands[0]), op.results[0].type
    if op in low.recorded:
        low.put_or_copy(op, low.recorded[op].reshape(type_.shape, axis_over_lanes(type_)))
    elif isinstance(type_, PackedType):
        load_packed(low, op, source)
    elif isinstance(type_.layout, Replicated):
        low.emit.dma(low.result(op), source, kind="broadcast")
    elif tensor.is_vector(type_):
        load_column(low, op, source)
    else:
        low.emit.dma(low.result(op), source)


@lowers(tensor.LoadExpertOp)
def load_expert(low: Lowering, op: tensor.LoadExpertOp) -> None:
    source = low.get(op.packed)
    count, pieces, lanes, part = source.shape
    if op.ids is None:
        one = source.slice((op.number, 0, 0, 0), (1, pieces, lanes, part))
        load_packed(low, op, one.reshape((pieces, lanes, part), None))
        return
    place = low.emit.new((lanes, pieces * part), UI8, Lanes(0))
    words, index = part // 4, low.get(op.ids)
    for piece in range(pieces):
        low.emit.add(
            chip.DmaGatherOp(
                place.buffer,
                source.buffer,
                index.buffer,
                channels=lanes,
                rows=1,
                table_rows=count,
                width=words,
                index_stride=0,
                c_stride=pieces * words,
                table_stride=words,
                row_stride=pieces * lanes * words,
                res=replace(place, dtype=I32).view((), piece * part),
                opd0=replace(source, dtype=I32).view((), piece * lanes * part),
                opd1=index.view((), op.number * I32.bytes),
            )
        )
    low.set(op.results[0], place)


def load_packed(low: Lowering, op: Op, source: Placed) -> None:
    """One run of bytes per lane, in pieces; see `weights.Packed`."""
    pieces, lanes, part = source.shape
    place = low.emit.new((lanes, pieces * part), UI8, Lanes(0))
    words = part // 4
    low.emit.add(
        chip.DmaMatrixOp(
            place.buffer,
            source.buffer,
            rows=pieces,
            columns=lanes * words,
            block=words,
            row_stride=lanes * words,
            n_stride=words,
            c_stride=words,
            res=replace(place, dtype=I32).view(()),
            opd0=replace(source, dtype=I32).view(()),
        )
    )
    low.set(op.results[0], place)


def load_column(low: Lowering, op: Op, source: Placed) -> None:
    """n contiguous items: as rows of 64 on n/64 lanes, transposed to one item per lane and row."""
    if source.shape[-1] != prod(source.shape):
        op.fail(f"takes several vectors {list(source.shape)} to the lanes")
    emit, lanes = low.emit, low.spec.lanes
    count = -(-source.shape[-1] // lanes)
    rows = emit.new((count, lanes), source.dtype, Lanes(0))
    for local, stored in lane_rows(rows, source):
        emit.dma(local, stored)
    spread = emit.new((lanes, count), source.dtype, Lanes(0))
    emit.lanes("cw_ts", spread, rows, (1, lanes, 1, count))
    low.put_or_copy(op, column_view(spread, op.results[0].type))


def lane_rows(rows: Placed, stored: Placed) -> Iterator[tuple[Placed, Placed]]:
    """A vector, a row of lanes of it on each lane, beside its place in DDR: whole rows, then the rest."""
    whole, rest = divmod(stored.shape[-1], rows.lanes)
    for start, count, size in ((0, whole, rows.lanes), (whole, 1, rest)):
        if count and size:
            part = replace(stored, shape=(count, size), strides=(rows.lanes, 1))
            yield rows.slice((start, 0), part.shape), part.slice((start, 0), part.shape)


def column_view(spread: Placed, type_: TensorType) -> Placed:
    """[lanes, rows] as the vector type_, whose item i is on lane i mod lanes in row i div lanes."""
    strides = tuple(1 if axis == len(type_.shape) - 1 else 0 for axis in range(len(type_.shape)))
    return replace(spread, shape=type_.shape, strides=strides, axis=len(type_.shape) - 1)


@lowers(tensor.StoreOp)
def store(low: Lowering, op: tensor.StoreOp) -> None:
    x, type_ = low.get(op.operands[0]), op.operands[0].type
    if tensor.is_vector(type_):
        store_column(low, low.result(op), x)
    else:
        low.emit.dma(low.result(op), x)


def store_column(low: Lowering, result: Placed, x: Placed) -> None:
    """As `load_column`, the other way round."""
    if x.shape[-1] != prod(x.shape):
        raise CannotView(f"several vectors {list(x.shape)} from the lanes")
    emit, lanes = low.emit, low.spec.lanes
    assert x.axis is not None
    count = x.lane_rows
    spread = Placed(x.buffer, x.dtype, (lanes, count), (0, x.strides[x.axis]), 0, lanes, x.offset)
    if spread.strides[1] != 1 or x.offset % low.spec.eu_bytes:
        spread = emit.cast(emit.new(spread.shape, x.dtype, Lanes(0)), spread)
    rows = emit.new((count, lanes), x.dtype, Lanes(0))
    emit.lanes("wc_ts", rows, spread, (1, count, 1, lanes))
    for local, stored in lane_rows(rows, result):
        emit.dma(stored, local)


@lowers(tensor.GatherOp)
def gather(low: Lowering, op: tensor.GatherOp) -> None:
    """One row per lane, one for all lanes, or rows that follow each other, in DDR or on the first lane.

    Only of the first kind may ids lie apart.
    """
    table, ids, res = low.get(op.table), low.get(op.ids), low.result(op)
    count, width = ids.shape[-1], table.shape[1]
    apart = ids.strides[-1]
    if res.in_ddr:
        if res.strides[-2:] != (width, 1):
            raise CannotView("gathered rows must follow each other")
        channels, rows, index_stride, c_stride = 1, count, 0, count * width
    elif res.axis is None:
        spread_row(low, op, res)
        return
    elif res.shape[res.axis] == 1 and count > 1:  # all on the first lane
        channels, rows, index_stride, c_stride = 1, count, 0, count * width
    else:
        channels, rows, index_stride, c_stride = count, 1, apart, res.strides[res.axis]
    if rows > 1 and apart != 1:
        raise CannotView("ids that lie apart pick rows that follow each other")
    emit_gather(low, res, table, ids, (channels, rows, index_stride, c_stride))


def spread_row(low: Lowering, op: tensor.GatherOp, res: Placed) -> None:
    """One row to lane 0, and from there to all: the DMA would fetch it once per lane."""
    table = low.get(op.table)
    row = low.emit.new((1, table.shape[1]), table.dtype, Lanes(0))
    emit_gather(low, row, table, low.get(op.ids), (1, 1, 0, table.shape[1]))
    low.emit.lanes("l_bc", res, row, (1, low.spec.lanes, 1, table.shape[1]))


def emit_gather(
    low: Lowering, res: Placed, table: Placed, ids: Placed, sizes: tuple[int, int, int, int]
) -> None:
    """sizes: channels, rows per channel, the index's stride from channel to channel, the result's."""
    channels, rows, index_stride, c_stride = sizes
    low.emit.add(
        chip.DmaGatherOp(
            res.buffer,
            table.buffer,
            ids.buffer,
            channels=channels,
            rows=rows,
            table_rows=table.shape[0],
            width=table.shape[1],
            index_stride=index_stride,
            c_stride=c_stride,
            res=res.view(()),
            opd0=table.view(()),
            opd1=ids.view(()),
        )
    )


@lowers(tensor.ScatterOp)
def scatter(low: Lowering, op: tensor.ScatterOp) -> None:
    table, ids, rows, res = low.get(op.table), low.get(op.ids), low.get(op.rows), low.result(op)
    copy_in_ddr(low, res, table)
    low.emit.add(
        chip.DmaScatterOp(
            res.buffer,
            rows.buffer,
            ids.buffer,
            rows=ids.shape[-1],
            table_rows=table.shape[0],
            width=table.shape[1],
            res=res.view(()),
            opd0=rows.view(()),
            opd1=ids.view(()),
        )
    )


def copy_in_ddr(low: Lowering, result: Placed, x: Placed) -> None:
    """By way of all lanes, each of which takes a run of items; the rest by way of one."""
    lanes, count = low.spec.lanes, prod(x.shape)
    run, rest = divmod(count, lanes)
    for start, channels, size in ((0, lanes, run), (count - rest, 1, rest)):
        if not size:
            continue
        local = low.emit.new((channels, size), x.dtype, Lanes(0))
        places = [
            replace(at, shape=(channels, size), strides=(size, 1), offset=at.offset + start * at.dtype.bytes)
            for at in (result, x)
        ]
        low.emit.dma(local, places[1])
        low.emit.dma(places[0], local)


# ---- across lanes ----


@lowers(tensor.RelayoutOp)
def relayout(low: Lowering, op: tensor.RelayoutOp) -> None:
    x, result = op.operands[0].type, op.results[0].type
    if tensor.is_vector(x):
        heads_from_column(low, op)
    elif tensor.is_vector(result):
        column_from_heads(low, op)
    else:
        op.fail(f"no way from {x} to {result}")


@lowers(tensor.ReplicateOp)
def replicate(low: Lowering, op: tensor.ReplicateOp) -> None:
    """The DMA reads no local memory but to write DDR; the unit for transposes copies from lane 0."""
    x, result = low.get(op.x), low.emit.of_type(op.y.type)
    count = prod(x.shape)
    low.emit.lanes("l_bc", result, contiguous(low, x), (1, low.spec.lanes, 1, count))
    low.put(op, result)


def contiguous(low: Lowering, x: Placed) -> Placed:
    """One row on lane 0 from the start of a slot on, without gaps."""
    fresh = low.emit.new((1, prod(x.shape)), x.dtype, Lanes(0))
    row = x.reshape((1, prod(x.shape)), 0)
    whole = row.strides[1] == 1 or row.shape[1] == 1
    return row if whole and not row.offset % low.spec.eu_bytes else low.emit.cast(fresh, row)


def row_from_column(low: Lowering, op: Op) -> None:
    """[.., 1, n] over the lanes to a row on lane 0, by one transpose of single items in whole slots."""
    x, count = low.get(op.operands[0]), op.operands[0].type.shape[-1]
    assert x.axis is not None
    slots = low.emit.new((count, 1), x.dtype, Lanes(0))
    column = replace(x, shape=(count, 1), strides=(x.strides[x.axis], 1), axis=0)
    if x.lane_rows > 1 and x.strides[x.axis] != slots.strides[0]:
        column = low.emit.cast(slots, column)
    result = low.emit.of_type(op.results[0].type)
    low.emit.lanes("wc_ts", result, column, (1, 1, 1, count))
    low.put(op, result)


def heads_from_column(low: Lowering, op: Op) -> None:
    """[.., h d] over the lanes to heads over the lanes: 64 dimensions at a time are transposed."""
    emit, lanes, x = low.emit, low.spec.lanes, low.get(op.operands[0])
    type_ = op.results[0].type
    if type_.shape[-2] == 1 and type_.shape[-1] % lanes:
        row_from_column(low, op)
        return
    width = head_size(low, op, type_)
    parts = width // lanes
    result = emit.of_type(type_)
    for heads, by_head in head_runs(x, result, width):
        count = by_head.shape[0]
        columns = emit.new((parts, lanes, count), x.dtype, Lanes(1))
        emit.cast(columns.permute((2, 0, 1)), by_head)
        for part in range(parts):
            source = columns.slice((part, 0, 0), (1, lanes, count))
            target = replace(heads, offset=heads.offset + part * lanes * x.dtype.bytes)
            emit.lanes("wc_ts", target, source, (1, count, 1, lanes))
    low.put(op, result)


def column_from_row(low: Lowering, op: Op) -> None:
    """The reverse: single items in whole slots, which may then be packed."""
    x, type_ = low.get(op.operands[0]), op.results[0].type
    count = type_.shape[-1]
    slots = low.emit.new((*(1 for _ in type_.shape[:-1]), count), x.dtype, Lanes(len(type_.shape) - 1))
    low.emit.lanes("cw_ts", slots, contiguous(low, x), (1, count, 1, 1))
    low.put_or_copy(op, slots)


def column_from_heads(low: Lowering, op: Op) -> None:
    emit, lanes, x = low.emit, low.spec.lanes, low.get(op.operands[0])
    *_, heads, width = op.operands[0].type.shape
    if heads == 1 and width % lanes:
        column_from_row(low, op)
        return
    width = head_size(low, op, op.operands[0].type)
    parts = width // lanes
    for heads, by_head in head_runs(low.result(op), x, width):
        count = by_head.shape[0]
        columns = emit.new((parts, lanes, count), x.dtype, Lanes(1))
        emit.lanes("cw_ts", columns, heads, (1, width, 1, count))
        emit.cast(by_head, columns.permute((2, 0, 1)))


def head_runs(column: Placed, heads: Placed, width: int) -> Iterator[tuple[Placed, Placed]]:
    """One row of lanes of heads after the other; and the items of a column that are these heads, as
    [heads, width / lanes, lanes].
    """
    assert column.axis is not None
    assert heads.axis is not None
    slot, parts, lanes = column.strides[column.axis], width // column.lanes, column.lanes
    pitch = parts * slot
    for start in range(0, heads.shape[heads.axis], lanes):
        count = min(lanes, heads.shape[heads.axis] - start)
        starts, sizes = [0] * len(heads.shape), list(heads.shape)
        starts[heads.axis], sizes[heads.axis] = start, count
        first = column.offset + start * pitch * column.dtype.bytes
        shape, strides = (count, parts, lanes), (pitch, slot, 0)
        yield (
            heads.slice(starts, sizes),
            Placed(column.buffer, column.dtype, shape, strides, 2, lanes, first, column.lane),
        )


def head_size(low: Lowering, op: Op, type_: TensorType) -> int:
    width: int = type_.shape[-1]
    if width % low.spec.lanes:
        op.fail(f"head size {width} is not a multiple of {low.spec.lanes}")
    return width
