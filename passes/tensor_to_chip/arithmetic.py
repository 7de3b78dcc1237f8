"""Element-wise ops, reductions, rope and argmax on the chip. Recipes: exact in f32, few instructions."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from compiler.ir.types import F32, I8, I32, TensorType
from dialects import chip, tensor
from dialects.tensor import Lanes, Replicated
from dialects.weights import Iota
from passes.tensor_to_chip.constants import CDF_LIMIT, cdf_table, exp2_table, lane_numbers
from passes.tensor_to_chip.context import Lowering, lowers
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.matmul import row_sums
from passes.tensor_to_chip.placed import Placed

KINDS = {
    tensor.AddOp: "add",
    tensor.SubOp: "sub",
    tensor.MulOp: "mul",
    tensor.MaxOp: "max",
    tensor.MinOp: "min",
}
LOG2_E = 1.4426950408889634
LOWEST = -3.0e38
NEUTRAL = {"avg": 0.0, "max": LOWEST}  # by kind of pooling, what may lie beside the items that count
EXPONENT_BIAS, MANTISSA_BITS = 127.0, 23  # of f32
UP = 4  # the mode of rounding to the next whole number above
GATE_LIMIT = 64  # g * 2**-64 is as good as 0, and its reciprocal is far from subnormal


@lowers(tensor.Binary)
def binary(low: Lowering, op: tensor.Binary) -> None:
    right = op.scalar if op.rhs is None else low.get(op.rhs)
    low.emit.ar(KINDS[type(op)], low.result(op), low.get(op.lhs), right)


@lowers(tensor.CastOp)
def cast(low: Lowering, op: tensor.CastOp) -> None:
    low.emit.cast(low.result(op), low.get(op.operands[0]))


@lowers(tensor.Exp2Op)
def exp2(low: Lowering, op: tensor.Exp2Op) -> None:
    low.put(op, low.emit.repeat(Emitter.exp2, low.get(op.operands[0]), exp2_table(low)))


@lowers(tensor.Exp2WholeOp)
def exp2_whole(low: Lowering, op: tensor.Exp2WholeOp) -> None:
    """The exponent's bits; those of what is too small are 0."""
    emit, x = low.emit, low.get(op.x)
    limited = emit.ar("max", emit.like(x), x, -EXPONENT_BIAS)
    exponent = emit.cast(emit.like(x, I8), limited)
    bits = replace(low.result(op), dtype=I32)
    emit.ar("adds", bits, exponent, EXPONENT_BIAS, constant_type=I32, shift=MANTISSA_BITS, round=1)


@lowers(tensor.CeilOp)
def ceil(low: Lowering, op: tensor.CeilOp) -> None:
    low.emit.cast(low.result(op), low.get(op.x), rounding=UP)


@lowers(tensor.RsqrtOp)
def rsqrt(low: Lowering, op: tensor.RsqrtOp) -> None:
    low.put(op, low.emit.sfu("rsqrt", low.get(op.operands[0])))


@lowers(tensor.ReciprocalOp)
def reciprocal(low: Lowering, op: tensor.ReciprocalOp) -> None:
    x = low.get(op.operands[0])
    low.put(op, low.emit.ar("div", low.emit.like(x), 1.0, x, round=2))


@lowers(tensor.GateOp)
def gate(low: Lowering, op: tensor.GateOp) -> None:
    g, up = low.get(op.operands[0]), low.get(op.operands[1])
    low.emit.repeat(gated, low.result(op), g, up, exp2_table(low))


@lowers(tensor.SigmoidOp)
def sigmoid(low: Lowering, op: tensor.SigmoidOp) -> None:
    low.put(op, low.emit.repeat(sigmoid_of, low.get(op.x), exp2_table(low)))


@lowers(tensor.NormalCdfOp)
def normal_cdf(low: Lowering, op: tensor.NormalCdfOp) -> None:
    """1 / (1 + 2**(x P(x**2))): the logarithm of the odds is a smooth odd function of x, nearly a line."""
    low.put(op, low.emit.repeat(cdf_of, low.get(op.x), cdf_table(low), exp2_table(low)))


def cdf_of(emit: Emitter, x: Placed, slopes: Placed, table: Placed) -> Placed:
    square = emit.ar("mul", emit.like(x), x, x)
    limited = emit.ar("min", emit.like(x), square, CDF_LIMIT**2)
    slope = emit.sfu("taylor", limited, slopes)
    return reciprocal_of_power(emit, emit.ar("mul", emit.like(x), slope, x), table)


def gated(emit: Emitter, res: Placed, g: Placed, up: Placed, table: Placed) -> Placed:
    """silu(g) * up."""
    silu = emit.ar("mul", emit.like(g), g, sigmoid_of(emit, g, table))
    return emit.ar("mul", res, silu, up)


def sigmoid_of(emit: Emitter, x: Placed, table: Placed) -> Placed:
    """1 / (1 + 2**(-x log2 e))."""
    return reciprocal_of_power(emit, emit.ar("mul", emit.like(x), x, -LOG2_E), table)


def reciprocal_of_power(emit: Emitter, power: Placed, table: Placed) -> Placed:
    """1 / (1 + 2**power)."""
    bottom = emit.ar("add", emit.like(power), emit.exp2(power, table, highest=GATE_LIMIT), 1.0)
    return emit.reciprocal(bottom)


@lowers(tensor.RopeOp)
def rope(low: Lowering, op: tensor.RopeOp) -> None:
    """The product [x cos | x sin'], then two sums of its items with their partners'; sin' has the sign."""
    x, rows = low.get(op.operands[0]), low.get(op.operands[1])
    *lead, width = x.shape
    result, zeros = low.result(op), [0] * len(lead)
    product = rope_product(low, x, rows, parted=op.mode == "pairs_to_halves")
    own, given = (
        product.slice((*zeros, i, 0), (*lead, 1, width)).reshape((*lead, width), x.axis) for i in (0, 1)
    )
    pairs = "interleaved" if op.mode == "interleaved" else "half"
    for which in (0, 1):
        terms = one_of_pairs(own, pairs, which), one_of_pairs(given, pairs, 1 - which)
        low.emit.ar("add", one_of_pairs(result, pairs, which), *terms)


def rope_product(low: Lowering, x: Placed, rows: Placed, parted: bool) -> Placed:
    """[.., 2, d], f32: x, perhaps with its even items first, times each half of the rows."""
    *lead, width = x.shape
    layout = Replicated() if x.axis is None else Lanes(x.axis)
    product = replace(low.emit.new((*lead, 2, width), F32, layout), lane=x.lane)
    factors = rows.reshape((*rows.shape[:-1], 2, width), rows.axis)
    if not parted:
        return low.emit.ar("mul", product, x.reshape((*lead, 1, width), x.axis), factors)
    for which in (0, 1):
        items = one_of_pairs(x, "interleaved", which).reshape((*lead, 1, width // 2), x.axis)
        target, factor = (one_of_pairs(each, "half", which) for each in (product, factors))
        low.emit.ar("mul", target, items, factor)
    return product


def one_of_pairs(x: Placed, pairs: str, which: int) -> Placed:
    """The first or second item of each pair along the last axis: of halves, or of neighbours."""
    *lead, width = x.shape
    split, axis = ((width // 2, 2), len(lead) + 1) if pairs == "interleaved" else ((2, width // 2), len(lead))
    x = x.reshape((*lead, *split), x.axis)
    starts, sizes = [0] * len(x.shape), [*x.shape]
    starts[axis], sizes[axis] = which, 1
    return x.slice(starts, sizes).reshape((*lead, width // 2), x.axis)


# ---- reductions ----


@lowers(tensor.ReduceOp)
def reduce(low: Lowering, op: tensor.ReduceOp) -> None:
    x = low.get(op.x)
    kind = "avg" if op.kind == "sum" else "max"
    if x.dtype != F32:
        row_sums(low, x, low.result(op))
    elif x.axis == op.axis:
        low.put(op, reduce_lanes(low, x, kind, op.scale))
    elif op.axis == len(x.shape) - 1:
        whole = x if low.emit.is_pooled(x, 1) else low.emit.cast(low.emit.of_type(op.x.type), x)
        low.put(op, low.emit.pool(kind, whole, op.scale))
    else:
        op.fail(f"axis {op.axis} is neither over the lanes nor the last")


def reduce_lanes(low: Lowering, x: Placed, kind: str, scale: float) -> Placed:
    """Reduce a column: in each lane, then all lanes' results, by way of lane 0, again in each lane."""
    emit, lanes = low.emit, low.spec.lanes
    partial = emit.pool(kind, as_lane_rows(low, x, NEUTRAL[kind]))
    row = emit.new((1, lanes), F32, Lanes(0))
    emit.lanes("wc_ts", row, partial, (1, 1, 1, lanes))
    everywhere = emit.new((lanes, lanes), F32, Lanes(0))
    emit.lanes("l_bc", everywhere, row, (1, lanes, 1, lanes))
    total = emit.pool(kind, everywhere, scale)
    shape = tuple(1 for _ in x.shape)
    return Placed(total.buffer, F32, shape, (0,) * len(shape), None, lanes)


def as_lane_rows(low: Lowering, x: Placed, fill: float) -> Placed:
    """A column [.., n] over the lanes as [lanes, rows], contiguous in each lane, filled up to whole rows."""
    assert x.axis is not None
    count = x.shape[x.axis]
    if count % low.spec.lanes:
        return copied_lane_rows(low, x, fill)
    rows = count // low.spec.lanes
    spread = Placed(x.buffer, x.dtype, (rows, low.spec.lanes), (x.strides[x.axis], 0), 1, x.lanes, x.offset)
    spread = spread.permute((1, 0))
    if x.strides[x.axis] == 1 and x.offset % low.spec.eu_bytes == 0:
        return spread
    compact = low.emit.new(spread.shape, x.dtype, Lanes(0))
    return low.emit.cast(compact, spread)


@lowers(tensor.ArgmaxOp)
def argmax(low: Lowering, op: tensor.ArgmaxOp) -> None:
    """The largest value on every lane; then the smallest index among the places that hold it.

    Item i sits on lane i mod lanes in column i div lanes. Places that hold the maximum give minus their
    column's first index, all others a number below any; the largest of those, less the lane number, is minus
    the index. Indices are exact in f32 below 2**24.
    """
    emit, lanes = low.emit, low.spec.lanes
    x = copied_lane_rows(low, low.get(op.x), LOWEST)
    columns = x.shape[1]
    highest = reduce_lane_rows(low, x, "max")
    first = low.emit.weight(Iota(columns, -float(lanes)), columns * 4)
    index = emit.new((1, columns), F32, Replicated())
    source = low.row_major(first, TensorType((1, columns), F32))
    emit.dma(index, source, kind="broadcast")
    negative = select_equal(low, x, highest, index)
    best = emit.pool("max", negative)
    numbered = emit.ar("sub", emit.like(best), best, lane_numbers(low))
    row = emit.new((1, lanes), F32, Lanes(0))
    emit.lanes("wc_ts", row, numbered, (1, 1, 1, lanes))
    lowest = emit.pool("max", row)
    positive = emit.ar("mul", emit.like(lowest), lowest, -1.0)
    result = low.result(op)
    low.emit.cast(replace(result, dtype=I32), positive)


def copied_lane_rows(low: Lowering, x: Placed, fill: float) -> Placed:
    """A copy of a column of f32 as [lanes, rows]; what it leaves of the last row of lanes holds `fill`."""
    emit, lanes = low.emit, low.spec.lanes
    count = prod(x.shape)
    rows = -(-count // lanes)
    spread = emit.new((lanes, rows), F32, Lanes(0))
    column = replace(spread, shape=(1, lanes * rows), strides=(0, 1), axis=1)
    if count % lanes:
        emit.fill(column.slice((0, count), (1, lanes * rows - count)), fill)
    emit.cast(column.slice((0, 0), (1, count)), x.reshape((1, count), 1))
    return spread


def reduce_lane_rows(low: Lowering, x: Placed, kind: str) -> Placed:
    """Reduce all of [lanes, columns]: one value per lane, the same on every lane."""
    emit, lanes = low.emit, low.spec.lanes
    row = emit.new((1, lanes), F32, Lanes(0))
    emit.lanes("wc_ts", row, emit.pool(kind, x), (1, 1, 1, lanes))
    everywhere = emit.new((lanes, lanes), F32, Lanes(0))
    emit.lanes("l_bc", everywhere, row, (1, lanes, 1, lanes))
    return emit.pool(kind, everywhere)


def select_equal(low: Lowering, x: Placed, value: Placed, then: Placed) -> Placed:
    """then where x equals the lane's one value, else a number below all of them."""
    res = low.emit.like(x)
    shape, _, _ = low.emit.aligned(x)
    op = chip.SelectOp(
        res.buffer,
        x.buffer,
        value.buffer,
        then.buffer,
        kind="sel_eq",
        shape=shape,
        res=res.view(()),
        opd0=x.view(()),
        opd1=value.view((0, 0, 0, 0)),
        opd2=then.view(()),
        opd3=chip.constant(-1.0e9, F32),
    )
    low.emit.add(op)
    return res
