"""The k largest on the chip: the largest, k times, each time without the ones before.

Where an item is, is told by minus its index in f32: of the places that hold the largest number, the one of
the largest such key is the first. Keys are exact below 2**24.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler.ir.types import F32
from compiler.sizes import round_up
from dialects import chip, tensor
from dialects.tensor import Lanes
from dialects.weights import Iota
from passes.tensor_to_chip.arithmetic import select_equal
from passes.tensor_to_chip.constants import broadcast, lane_numbers
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import MAX_ITEMS
from passes.tensor_to_chip.placed import Placed

LOWEST = -3.4028234663852886e38  # the chip's pools start from it


@dataclass(frozen=True)
class Found:
    """A number and its key [rows, 1], of the row in each lane or, the same in each, of all."""

    value: Placed
    key: Placed


@lowers(tensor.TopkOp)
def topk(low: Lowering, op: tensor.TopkOp) -> None:
    emit, x = low.emit, low.get(op.x)
    values, keys = (emit.of_type(op.values.type) for _ in range(2))
    if x.axis == len(x.shape) - 1:
        search_across(low, spread(low, x), matrix(values), matrix(keys))
    else:
        search_rows(low, matrix(x), matrix(values), matrix(keys))
    low.set(op.values, values)
    indices = emit.ar("mul", emit.of_type(op.values.type), keys, -1.0)
    low.set(op.indices, emit.cast(emit.of_type(op.indices.type), indices))


def matrix(x: Placed) -> Placed:
    """[.., rows, n] as [rows, n]."""
    last = len(x.shape) - 1
    axis = None if x.axis is None else x.axis - last + 1
    return replace(x, shape=x.shape[-2:], strides=x.strides[-2:], axis=axis)


def search_rows(low: Lowering, x: Placed, values: Placed, keys: Placed) -> None:
    """In rows [rows, n] over the lanes, as many at a time as there are lanes: comparisons take one number
    per lane.
    """
    rows, width = x.shape
    for start in range(0, rows, low.spec.lanes):
        count = min(low.spec.lanes, rows - start)
        some, found_values, found_keys = (
            part.slice((start, 0), (count, part.shape[1])) for part in (x, values, keys)
        )
        candidates = copied(low, some, width)
        table = keys_of_columns(low, candidates.shape[1], 1)
        for place in range(values.shape[1]):
            found = largest(low, candidates, table)
            note(low, found, found_values, found_keys, place)
            if place + 1 < values.shape[1]:
                candidates = without(low, candidates, table, found.key)


def search_across(low: Lowering, x: Placed, values: Placed, keys: Placed) -> None:
    """In all of [lanes, columns]; an item's key is that of its column less its lane."""
    columns, count = x.shape[1], values.shape[1]
    table = keys_of_columns(low, columns, low.spec.lanes)
    lanes = lane_numbers(low)
    for place in range(count):
        found = largest_of_lanes(low, largest(low, x, table), lanes)
        note(low, found, values, keys, place)
        if place + 1 < count:  # only on its own lane does the lane's number make it the key of a column
            own = low.emit.ar("add", low.emit.like(lanes), found.key, lanes)
            x = without(low, x, table, own)


def note(low: Lowering, found: Found, values: Placed, keys: Placed, place: int) -> None:
    for target, source in ((values, found.value), (keys, found.key)):
        column = target.slice((0, place), (target.shape[0], 1))
        low.emit.cast(column, source if target.axis is not None else everywhere(source))


def everywhere(x: Placed) -> Placed:
    """[lanes, 1] with one number on all lanes as [1, 1]."""
    return replace(x, shape=(1, 1), strides=(0, 0), axis=None)


def largest(low: Lowering, x: Placed, table: Placed) -> Found:
    """The largest in each lane, of equals the one of the largest key; `table` has the keys of columns."""
    value = low.emit.pool("max", x)
    return Found(value, low.emit.pool("max", select_equal(low, x, value, table)))


def largest_of_lanes(low: Lowering, found: Found, lanes: Placed) -> Found:
    """The largest of what lanes found, and its key less its lane's number, on every lane."""
    emit, count = low.emit, low.spec.lanes
    pair = emit.new((2, count, 1), F32, Lanes(1))
    value, key = (pair.slice((i, 0, 0), (1, count, 1)).reshape((count, 1), 0) for i in range(2))
    emit.cast(value, found.value)
    emit.ar("sub", key, found.key, lanes)
    row = emit.new((2, 1, count), F32, Lanes(1))
    emit.lanes("wc_ts", row, pair, (2, 1, 1, count))
    rows = emit.new((2, count, count), F32, Lanes(1))
    emit.lanes("l_bc", rows, row, (2, count, 1, count))
    values, keys = (rows.slice((i, 0, 0), (1, count, count)).reshape((count, count), 0) for i in range(2))
    return largest(low, values, keys)


def without(low: Lowering, x: Placed, table: Placed, key: Placed) -> Placed:
    """x with the lowest number where the column's key is the lane's."""
    res = low.emit.like(x)
    shape, _, _ = low.emit.aligned(x)
    low.emit.add(
        chip.SelectOp(
            res.buffer,
            table.buffer,
            key.buffer,
            x.buffer,
            kind="sel_eq",
            shape=shape,
            res=res.view(()),
            opd0=table.view(()),
            opd1=key.view((0, 0, 0, 0)),
            opd2=chip.constant(LOWEST, F32),
            opd3=x.view(()),
        )
    )
    return res


# ---- what is searched ----


def keys_of_columns(low: Lowering, columns: int, step: int) -> Placed:
    """0, -step, -2 step, ... in every lane; the first is no -0, which would differ from a computed 0."""
    row = broadcast(low, Iota(columns, float(step)), columns)
    return low.emit.ar("sub", low.emit.like(row), 0.0, row)


def padded(low: Lowering, columns: int) -> int:
    """A pool takes whole EU widths of columns many times faster than any other number of them."""
    width = low.spec.eu_items(F32.bytes)
    return columns if columns <= width else round_up(columns, width)


def copied(low: Lowering, x: Placed, width: int) -> Placed:
    """Rows [rows, width] with their columns filled up; -0 becomes 0, as comparisons are of bits."""
    emit, rows = low.emit, x.shape[0]
    fresh = emit.new((rows, padded(low, width)), F32, Lanes(0))
    if fresh.shape[1] > width:
        emit.fill(fresh.slice((0, width), (rows, fresh.shape[1] - width)), LOWEST)
    emit.ar("add", fresh.slice((0, 0), (rows, width)), x, 0.0)
    return fresh


def spread(low: Lowering, x: Placed) -> Placed:
    """[.., n] over the lanes as [lanes, columns], filled up; -0 becomes 0."""
    emit, lanes, count = low.emit, low.spec.lanes, x.shape[-1]
    source = replace(x, shape=(1, count), strides=(0, x.strides[-1]), axis=1)
    columns = padded(low, -(-count // lanes))
    fresh = emit.new((lanes, columns), F32, Lanes(0))
    column = Placed(fresh.buffer, F32, (1, lanes * columns), (0, 1), 1, lanes)
    whole = count - count % lanes
    if lanes * columns > count:
        emit.fill(column.slice((0, whole), (1, lanes * columns - whole)), LOWEST)
    parts = ((0, whole), (whole, count - whole)) if count > MAX_ITEMS else ((0, count),)
    for start, size in parts:
        if size:
            target, part = (each.slice((0, start), (1, size)) for each in (column, source))
            emit.ar("add", target, part, 0.0)
    return fresh
