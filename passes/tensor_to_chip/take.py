"""Items of rows in another order, by gathers inside the lanes: what crosses lanes is a whole row to all."""

from __future__ import annotations

from dataclasses import replace

from dialects import chip, tensor
from dialects.tensor import Lanes
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.movement import column_view
from passes.tensor_to_chip.placed import Placed


@lowers(tensor.TakeOp)
def take(low: Lowering, op: tensor.TakeOp) -> None:
    x, order = low.get(op.x), low.get(op.order)
    if x.axis == len(x.shape) - 1:
        take_over_lanes(low, op, x, order)
    else:
        take_in_rows(low, op, x, order)


def take_in_rows(low: Lowering, op: tensor.TakeOp, x: Placed, order: Placed) -> None:
    """All rows by one index, whose items go round the lanes."""
    if not low.emit.is_aligned(x):
        x = low.emit.cast(low.emit.of_type(op.x.type), x)
    result = low.emit.of_type(op.y.type)
    shape = (1, x.shape[-2], 1, result.shape[-1])
    low.put(op, gathered(low, "pl_gather_d1coor", result, x, order, shape))


def take_over_lanes(low: Lowering, op: tensor.TakeOp, x: Placed, order: Placed) -> None:
    """Every lane gets the whole row, and picks from it what is to lie there."""
    lanes, row = low.spec.lanes, row_everywhere(low, x)
    columns = order.shape[0] // lanes
    picked = low.emit.new((lanes, columns), x.dtype, Lanes(0))
    gathered(low, "pe_s_gather_d1coor", picked, row, order, (1, lanes, 1, columns))
    low.put_or_copy(op, column_view(picked, op.y.type))


def row_everywhere(low: Lowering, x: Placed) -> Placed:
    """[.., n] over the lanes as [lanes, n], and more behind it where n fills no row of lanes."""
    emit, lanes, axis = low.emit, low.spec.lanes, len(x.shape) - 1
    slot = low.spec.eu_items(x.dtype.bytes)
    if x.strides[axis] != slot or x.lane or x.offset % low.spec.eu_bytes:
        x = emit.cast(emit.new(x.shape, x.dtype, Lanes(axis)), x)
    columns = x.lane_rows
    slots = replace(x, shape=(columns, lanes, 1), strides=(slot, slot, 1), axis=1)
    row = emit.new((columns, 1, lanes), x.dtype, Lanes(1))
    emit.lanes("wc_ts", row, slots, (columns, 1, 1, lanes))
    everywhere = emit.new((lanes, columns * lanes), x.dtype, Lanes(0))
    return emit.lanes("l_bc", everywhere, row, (1, lanes, 1, columns * lanes))


def gathered(
    low: Lowering, kind: str, res: Placed, x: Placed, index: Placed, shape: chip.Shape4
) -> Placed:
    low.emit.add(
        chip.GatherOp(
            res.buffer,
            x.buffer,
            index.buffer,
            kind=kind,
            shape=shape,
            width=x.shape[-1],
            res=res.view(()),
            opd0=x.view(()),
            opd1=index.view(()),
        )
    )
    return res
