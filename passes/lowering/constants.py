"""Small tables that instructions need: pieces of the coefficient blob, loaded to all lanes."""

from __future__ import annotations

from math import factorial, log

from compiler.ir.types import F32, TensorType
from dialects.chip import Floats, Iota, WeightSource
from dialects.tensor import Lanes, Replicated
from passes.lowering.context import Lowering
from passes.lowering.placed import Placed

EXP2_TERMS = 6  # of the series of 2**r for |r| <= 1/2: the first left out is 2.4e-6 of the result


def broadcast(low: Lowering, source: WeightSource, count: int) -> Placed:
    """A row of f32, the same in every lane; loaded where first needed."""
    if source not in low.tables:
        row = low.emit.new((1, count), F32, Replicated())
        buffer = low.emit.weight(source, 4 * count)
        low.emit.dma(row, low.row_major(buffer, TensorType((1, count), F32)), kind="broadcast")
        low.tables[source] = row
    return low.tables[source]


def exp2_source() -> Floats:
    return Floats(tuple(log(2.0) ** k / factorial(k) for k in range(EXP2_TERMS)))


def exp2_table(low: Lowering) -> Placed:
    return broadcast(low, exp2_source(), EXP2_TERMS)


def lane_numbers(low: Lowering) -> Placed:
    """f32: lane l holds l."""
    lanes = low.spec.lanes
    place = low.emit.new((lanes, 1), F32, Lanes(0))
    buffer = low.emit.weight(Iota(lanes, 1.0), 4 * lanes)
    low.emit.dma(place, low.row_major(buffer, TensorType((lanes, 1), F32)))
    return place
