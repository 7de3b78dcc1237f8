"""Small tables that instructions need: pieces of the coefficient blob, loaded to all lanes."""

from __future__ import annotations

from compiler.ir.core import Op
from compiler.ir.types import F32, TensorType
from dialects import tensor
from dialects.tensor import Lanes, Replicated
from dialects.weights import Floats, Iota, WeightSource
from passes.tensor_to_chip.context import Lowering
from passes.tensor_to_chip.placed import Placed

# The polynomial of 2**r, constant term first, whose largest relative error for |r| <= 1/2 is the least of its
# degree, 2.6e-6; found by Remez's exchange.
EXP2_SERIES = (
    0.9999992614457143, 0.6931218147367706, 0.24024744827944117, 0.055917860319304374, 0.009570101908077952
)  # fmt: skip

# The polynomial P of t = x**2, constant term first, with which 1 / (1 + 2**(x P(t))) is the share of normal
# numbers below x: 3e-6 of it off for |x| up to 4, and 2e-5 up to the limit. Found by weighted least squares.
CDF_LIMIT = 5.0
CDF_SERIES = (
    -2.302224993543818, -0.10478710708964058, 5.295948618367991e-05, 0.00017456712917908825,
    -1.4153481420033127e-05, 6.376918153590942e-07, -1.735784886372747e-08,
    2.653744064007037e-10, -1.7456224698448697e-12,
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


def cdf_source() -> Floats:
    return Floats(CDF_SERIES)


def cdf_table(low: Lowering) -> Placed:
    return broadcast(low, cdf_source(), len(CDF_SERIES))


def sources_for(op: Op) -> list[Floats]:
    """The rows that an op needs in every lane."""
    powers = [exp2_source()] if isinstance(op, tensor.TakesPowers) else []
    return [*powers, cdf_source()] if isinstance(op, tensor.NormalCdfOp) else powers


def lane_numbers(low: Lowering) -> Placed:
    """f32: lane l holds l."""
    lanes = low.spec.lanes
    place = low.emit.new((lanes, 1), F32, Lanes(0))
    buffer = low.emit.weight(Iota(lanes, 1.0), 4 * lanes)
    low.emit.dma(place, low.row_major(buffer, TensorType((lanes, 1), F32)))
    return place
