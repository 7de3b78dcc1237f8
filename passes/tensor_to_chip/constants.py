"""Small tables that instructions need: pieces of the coefficient blob, loaded to all lanes."""

from __future__ import annotations

from compiler.ir.types import F32, TensorType
from dialects.tensor import Lanes, Replicated
from dialects.weights import Floats, Iota, WeightSource
from passes.tensor_to_chip.context import Lowering
from passes.tensor_to_chip.placed import Placed

# The polynomial of 2**r, constant term first, whose largest relative error for |r| <= 1/2 is the least of its
# degree, 2.6e-6; found by Remez's exchange.
EXP2_SERIES = (
    0.9999992614457143, 0.6931218147367706, 0.24024744827944117, 0.055917860319304374, 0.009570101908077952
)  # fmt: skip


def broadcast(low: Lowering, source: WeightSource, count: int) -> Placed:
    """A row of f32, the same in every lane; loaded where first needed."""
    if source not in low.tables:
        row = low.emit.new((1, count), F32, Replicated())
        buffer = low.emit.weight(source, 4 * count)
        low.emit.dma(row, low.row_major(buffer, TensorType((1, count), F32)), kind="broadcast")
        low.tables[source] = row
    return low.tables[source]


def exp2_source() -> Floats:
    """Half of 2**r; see `Emitter.exp2`."""
    return Floats(tuple(term / 2 for term in EXP2_SERIES))


def exp2_table(low: Lowering) -> Placed:
    return broadcast(low, exp2_source(), len(EXP2_SERIES))


def lane_numbers(low: Lowering) -> Placed:
    """f32: lane l holds l."""
    lanes = low.spec.lanes
    place = low.emit.new((lanes, 1), F32, Lanes(0))
    buffer = low.emit.weight(Iota(lanes, 1.0), 4 * lanes)
    low.emit.dma(place, low.row_major(buffer, TensorType((lanes, 1), F32)))
    return place
