"""What each tensor op computes, in numpy: one function per op, named as in dialects/tensor.py.

Layouts play no part: where an item lies does not change what it is. Values between ops are float32, and only
`cast`, weights and what is said to be 16 bit rounds. Sums are numpy's, so they differ from the chip's in the
order of their terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.types import BF16, F16, ElementType
from compiler.weights.scheme import Scheme, scheme_of
from dialects import tensor
from dialects.activations import SWISHES
from dialects.weights import TensorView, transposed, view_of_name
from runtime_sim.arrays import Array, DType
from runtime_sim.interpret.activations import ACTIVATIONS, normal_share, sigmoid
from runtime_sim.interpret.codes import decoded
from runtime_sim.interpret.nucleus import nucleus_of
from runtime_sim.interpret.rules import Data, exchanges, simulates, supplies

UNIT = -512 / np.log(2)  # steps of a power of two in fixed point, of which there are 512
LEAST_EXPONENT = np.float32(-126)  # of a normal f32
WHOLE = np.float32(2**23)  # from here on f32 has no fraction
LOWEST_EXPONENT = np.float32(-126.5)  # what rounds to less has no normal f32
EVERY = "[*]"  # stands in names of parts of all experts where one's have its number
LARGEST_F16 = 65504


def wide(x: Array) -> Array:
    return x.astype(np.float32, copy=False)


def narrow(x: Array, dtype: DType) -> Array:
    """Rounded to nearest even; parameters beyond the range of f16 become its largest number."""
    values = wide(x) if x.dtype != dtype else x
    if dtype == np.float16:
        values = np.clip(values, -LARGEST_F16, LARGEST_F16)
    return values.astype(dtype, copy=False)


def parameter(
    name: str, data: Data, scheme: Scheme | None, element: ElementType, experts: int | None = None
) -> Array:
    """A parameter as it is stored: in the type `element`, or as codes that decode to it; those of a stack of
    matrices of `experts` are decoded as of one.
    """
    view = view_of_name(name)
    if scheme is not None:
        whole = decoded(data.codes(whole_name(view), scheme), scheme, element)
        whole = whole if experts is None else whole.reshape(experts, -1, whole.shape[-1])
    else:
        whole = narrow(view.of(data.weights(view.tensor)), element.numpy)
    return whole[view.index]


def whole_name(view: TensorView) -> str:
    """Of all rows and columns, which are stored as codes together."""
    return transposed(view.tensor) if view.transposed else view.tensor


@supplies(tensor.WeightOp)
def weight(op: tensor.WeightOp, data: Data) -> Array:
    type_ = op.result_.type
    experts = type_.shape[0] if type_.rank == 3 else None
    found = [parameter(name, data, scheme_of(type_), type_.element, experts) for name in op.sources]
    return np.concatenate(found).reshape(type_.shape)


@supplies(tensor.PackedWeightOp)
def packed_weight(op: tensor.PackedWeightOp, data: Data) -> Array:
    """The tile decoded, or the tiles of all experts: how their bytes lie is the chip's affair."""
    if not op.experts:
        return one_tile(op, op.sources, data)
    names = [[name.replace(EVERY, f"[{expert}]") for name in op.sources] for expert in range(op.experts)]
    return np.stack([one_tile(op, of_one, data) for of_one in names])


def one_tile(op: tensor.PackedWeightOp, names: Sequence[str], data: Data) -> Array:
    type_ = op.result_.type
    whole = [parameter(name, data, type_.scheme, type_.element) for name in names]
    sources = whole if op.each else [np.concatenate(whole)]
    rows = slice(op.row, op.row + type_.rows // len(sources))
    return np.concatenate([source[rows, op.column : op.column + type_.columns] for source in sources])


@supplies(tensor.IndicesOp)
def indices(op: tensor.IndicesOp, data: Data) -> Array:
    return data.weights(op.source).astype(np.uint16)


@supplies(tensor.RopeTableOp)
def rope_table(op: tensor.RopeTableOp, data: Data) -> Array:
    cos, sin = (data.tables[name] for name in (op.cos, op.sin))
    if op.mode == "half_tables":
        cos, sin = (np.concatenate([each, each], axis=1) for each in (cos, sin))
    rows = np.concatenate([cos, given(sin, op.mode == "interleaved")], axis=1).astype(np.float32)
    return rows[:, op.columns] if op.columns else rows


def given(sin: Array, neighbours: bool) -> Array:
    """What each item is multiplied by to be added to its partner: the partner's sine, minus for the later."""
    if neighbours:
        swapped = sin.reshape(*sin.shape[:-1], -1, 2)[..., ::-1].reshape(sin.shape)
        return swapped * np.where(np.arange(sin.shape[-1]) % 2, np.float32(-1), np.float32(1))
    first, second = np.split(sin, 2, axis=-1)
    return np.concatenate([second, -first], axis=-1)


@supplies(tensor.TableOp)
def table(op: tensor.TableOp, data: Data) -> Array:
    return data.tables[op.name].reshape(op.result_.type.shape).astype(np.float32, copy=False)


@simulates(tensor.IotaOp)
def iota(op: tensor.IotaOp) -> Array:
    type_ = op.result_.type
    return (np.arange(type_.size, dtype=np.float32) * np.float32(op.step)).reshape(type_.shape)


@simulates(tensor.LoadOp, tensor.StoreOp, tensor.ReplicateOp)
def move(op: tensor.LoadOp | tensor.StoreOp | tensor.ReplicateOp, x: Array) -> Array:
    return x


@simulates(tensor.LoadExpertOp)
def load_expert(op: tensor.LoadExpertOp, packed: Array, ids: Array | None) -> Array:
    tile: Array = packed[op.number if ids is None else ids.reshape(-1)[op.number]]
    return tile


@simulates(tensor.GatherOp)
def gather(op: tensor.GatherOp, table: Array, ids: Array) -> Array:
    """Of ids outside of the table, zeros."""
    rows = ids.reshape(-1, 1)
    known = (rows >= 0) & (rows < len(table))
    found = np.where(known, table[np.where(known, rows, 0)[:, 0]], table.dtype.type(0))
    return found.reshape(op.rows.type.shape)


@simulates(tensor.ScatterOp)
def scatter(op: tensor.ScatterOp, table: Array, ids: Array, rows: Array) -> Array:
    known = (ids[0] >= 0) & (ids[0] < len(table))
    y = table.copy()
    y[ids[0, known]] = rows[0, known]
    return y


def second(op: tensor.Binary, rhs: Array | None) -> Array:
    return np.asarray(op.scalar, np.float32) if rhs is None else rhs


@simulates(tensor.AddOp)
def add(op: tensor.AddOp, lhs: Array, rhs: Array | None) -> Array:
    return lhs + second(op, rhs)


@simulates(tensor.SubOp)
def sub(op: tensor.SubOp, lhs: Array, rhs: Array | None) -> Array:
    return lhs - second(op, rhs)


@simulates(tensor.MulOp)
def mul(op: tensor.MulOp, lhs: Array, rhs: Array | None) -> Array:
    return lhs * second(op, rhs)


@simulates(tensor.MaxOp)
def max_(op: tensor.MaxOp, lhs: Array, rhs: Array | None) -> Array:
    return np.maximum(lhs, second(op, rhs))


@simulates(tensor.MinOp)
def min_(op: tensor.MinOp, lhs: Array, rhs: Array | None) -> Array:
    return np.minimum(lhs, second(op, rhs))


@simulates(tensor.Exp2Op)
def exp2(op: tensor.Exp2Op, x: Array) -> Array:
    return np.where(x < LOWEST_EXPONENT, np.float32(0), np.exp2(x))


@simulates(tensor.SoftmaxWeightsOp)
def softmax_weights(op: tensor.SoftmaxWeightsOp, x: Array, top: Array, hiding: Array | None = None) -> Array:
    if op.y.type.element == F16:
        return np.exp2((x - top) / np.float32(op.steps)).astype(np.float16)
    scale = np.float32(256 / op.steps)
    whole = x * scale + (WHOLE + np.float32(127 * 256) - top * scale)
    counts = (whole >= WHOLE) & (True if hiding is None else hiding != tensor.HIDDEN)
    place = np.where(counts, whole - WHOLE, 0).astype(np.int64)
    fraction = place % 256
    curve = halves_up(fraction * ((259 - fraction) % 256), 7)
    bits = halves_up(place - halves_up(173 * curve, 10), 1)
    return bits.astype(np.uint16).view(op.y.type.element.numpy)


@simulates(tensor.HidingOp)
def hiding(op: tensor.HidingOp, x: Array) -> Array:
    found = np.where(np.abs(wide(x)) < 2.0**-125, np.int8(tensor.SHOWN), np.int8(tensor.HIDDEN))
    return np.repeat(found, op.times, axis=0)


def halves_up(x: Array, bits: int) -> Array:
    """x / 2**bits, rounded."""
    return (x + (1 << (bits - 1))) >> bits


@simulates(tensor.Exp2WholeOp)
def exp2_whole(op: tensor.Exp2WholeOp, x: Array) -> Array:
    return np.ldexp((x >= LEAST_EXPONENT).astype(np.float32), np.maximum(x, LEAST_EXPONENT).astype(np.int32))


@simulates(tensor.CeilOp)
def ceil(op: tensor.CeilOp, x: Array) -> Array:
    return np.ceil(x)


@simulates(tensor.RsqrtOp)
def rsqrt(op: tensor.RsqrtOp, x: Array) -> Array:
    return np.float32(1) / np.sqrt(x)


@simulates(tensor.ReciprocalOp)
def reciprocal(op: tensor.ReciprocalOp, x: Array) -> Array:
    return np.float32(1) / x


@simulates(tensor.SigmoidOp)
def sigmoid_(op: tensor.SigmoidOp, x: Array) -> Array:
    return sigmoid(x)


@simulates(tensor.NormalCdfOp)
def normal_cdf(op: tensor.NormalCdfOp, x: Array) -> Array:
    return normal_share(x)


@simulates(tensor.CastOp)
def cast(op: tensor.CastOp, x: Array) -> Array:
    return wide(x).astype(op.y.type.element.numpy)


@simulates(tensor.GateOp)
def gate(op: tensor.GateOp, gate: Array, up: Array) -> Array:
    return ACTIVATIONS["silu"](gate) * up


@simulates(tensor.Bf16GateOp)
def bf16_gate(op: tensor.Bf16GateOp, gate: Array, up: Array) -> Array:
    return gate_for_bf16(gate, up)


def activated(act: str, gate: Array, up: Array, to: DType) -> Array:
    """act(gate) * up, which will be rounded to this type."""
    if act == "silu" and to == BF16.numpy:
        return gate_for_bf16(gate, up)
    return activation(act, gate, to) * up


def activation(act: str, x: Array, to: DType) -> Array:
    """act(x), which will be rounded to this type."""
    return swish_for_bf16(x, *SWISHES[act]) if act in SWISHES and to == BF16.numpy else ACTIVATIONS[act](x)


def gate_for_bf16(gate: Array, up: Array) -> Array:
    """As `tensor.bf16_gate` says."""
    y: Array = gate * share_for_bf16(gate * np.float32(UNIT)) * up
    return y


@simulates(tensor.Bf16SwishOp)
def bf16_swish(op: tensor.Bf16SwishOp, x: Array) -> Array:
    return swish_for_bf16(x, op.slope, op.cubic)


def swish_for_bf16(x: Array, slope: float, cubic: float) -> Array:
    """As `tensor.bf16_swish` says."""
    square = x * x * np.float32(UNIT * cubic) if cubic else np.float32(0)
    y: Array = x * share_for_bf16((square + np.float32(UNIT * slope)) * x)
    return y


def share_for_bf16(steps: Array) -> Array:
    """1 / (1 + 2**(steps / 512))."""
    bottom = np.float32(1) + power_of_steps(steps)
    guess = (0x7EF40000 - bottom.view(np.int32)).view(np.float32)
    y: Array = guess * (np.float32(2.0015) - bottom * guess)
    return y


def power_of_steps(steps: Array) -> Array:
    """2**(steps / 512)."""
    place = np.rint(steps).clip(-(2**15), 2**15 - 1).astype(np.int64)
    fraction = place % 512 >> 1
    curve = np.minimum(halves_up(fraction * (256 - fraction), 6), 255)
    bend = halves_up(curve * halves_up(fraction + 1280, 3), 10)
    return ((place + 512 * 127 - bend) << 14).astype(np.int32).view(np.float32)


@simulates(tensor.ReduceOp)
def reduce(op: tensor.ReduceOp, x: Array) -> Array:
    terms = x if op.kind == "max" else wide(x) * np.float32(op.scale)
    y: Array = (np.max if op.kind == "max" else np.sum)(terms, axis=op.axis, keepdims=True)
    return y


@simulates(tensor.RopeOp)
def rope(op: tensor.RopeOp, x: Array, rows: Array) -> Array:
    cos, to_partner = np.split(rows, 2, axis=-1)
    if op.mode == "pairs_to_halves":
        x = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
    pieces = x * to_partner
    if op.mode == "interleaved":
        received = pieces.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
    else:
        received = np.concatenate(np.split(pieces, 2, axis=-1)[::-1], axis=-1)
    y: Array = x * cos + received
    return y


@simulates(tensor.ArgmaxOp)
def argmax(op: tensor.ArgmaxOp, x: Array) -> Array:
    return np.asarray(np.argmax(x, axis=-1, keepdims=True), np.int32)


@simulates(tensor.TopkOp)
def topk(op: tensor.TopkOp, x: Array) -> tuple[Array, Array]:
    order = np.argsort(-x, axis=-1, kind="stable")[..., : op.k]
    return np.take_along_axis(x, order, axis=-1), order.astype(np.int32)


@simulates(tensor.NucleusOp)
def nucleus(op: tensor.NucleusOp, x: Array, temperature: Array, top_k: Array, top_p: Array) -> Array:
    return nucleus_of(x, temperature, top_k, top_p, op.least)


@simulates(tensor.DequantizeOp)
def dequantize(op: tensor.DequantizeOp, packed: Array) -> Array:
    return packed.astype(op.w.type.element.numpy)


@simulates(tensor.LinearOp)
def linear(op: tensor.LinearOp, x: Array, w: Array, accumulator: Array | None) -> Array:
    return accumulated(project(x, w), accumulator)


@simulates(tensor.GatedLinearOp)
def gated_linear(op: tensor.GatedLinearOp, x: Array, gate: Array, up: Array, biases: list[Array]) -> Array:
    gated, plain = project(x, gate), project(x, up)
    if biases:
        gated, plain = gated + biases[0], plain + biases[1]
    return activated(op.act, gated, plain, x.dtype).astype(x.dtype)


@simulates(tensor.ActLinearOp)
def act_linear(op: tensor.ActLinearOp, x: Array, w: Array, bias: Array | None) -> Array:
    products = project(x, w)
    return activation(op.act, products if bias is None else products + bias, x.dtype).astype(x.dtype)


def project(x: Array, w: Array) -> Array:
    """x @ w.T in f32."""
    product: Array = wide(x) @ wide(w).T
    return product


@simulates(tensor.ExpertsOp)
def experts(
    op: tensor.ExpertsOp,
    x: Array,
    shares: Array,
    gate: Array | None,
    up: Array,
    down: Array,
    gate_bias: Array | None,
    up_bias: Array | None,
    accumulator: Array | None,
    ids: Array | None,
) -> Array:
    y = np.zeros(op.y.type.shape, np.float32) if accumulator is None else accumulator
    for place, e in enumerate(range(len(up)) if ids is None else ids.reshape(-1)):
        inner = project(x, up[e]) + (0 if up_bias is None else up_bias[e])
        if gate is None:
            inner = ACTIVATIONS[op.act](inner)
        else:
            gated = project(x, gate[e]) + (0 if gate_bias is None else gate_bias[e])
            if op.limit is not None:
                gated, inner = np.minimum(gated, op.limit), np.clip(inner, -op.limit, op.limit)
            inner = activated(op.act, gated, inner + np.float32(op.offset), x.dtype)
        y = y + project((inner * shares[..., place : place + 1]).astype(x.dtype), down[e])
    return y


@simulates(tensor.MatmulOp)
def matmul(op: tensor.MatmulOp, a: Array, b: Array, accumulator: Array | None) -> Array:
    return accumulated(wide(a) @ wide(b.T if op.transpose_b else b), accumulator)


def accumulated(product: Array, start: Array | None) -> Array:
    return product if start is None else start + product


@simulates(tensor.SliceOp)
def slice_(op: tensor.SliceOp, x: Array) -> Array:
    return x[tuple(slice(start, start + size) for start, size in zip(op.starts, op.sizes, strict=True))]


@simulates(tensor.ReshapeOp, tensor.RelayoutOp)
def reshape(op: tensor.ReshapeOp | tensor.RelayoutOp, x: Array) -> Array:
    return x.reshape(op.y.type.shape)


@simulates(tensor.BroadcastOp)
def broadcast(op: tensor.BroadcastOp, x: Array) -> Array:
    return np.broadcast_to(x, op.y.type.shape)


@simulates(tensor.PermuteOp)
def permute(op: tensor.PermuteOp, x: Array) -> Array:
    return x.transpose(op.order)


@simulates(tensor.ConcatOp)
def concat(op: tensor.ConcatOp, parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=op.axis)


@simulates(tensor.TakeOp)
def take(op: tensor.TakeOp, x: Array, order: Array) -> Array:
    return x[..., order]


@simulates(tensor.PadOp)
def pad(op: tensor.PadOp, x: Array) -> Array:
    missing = op.y.type.shape[-1] - x.shape[-1]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=op.value)


# ---- exchange between the parts of a net ----


@exchanges(tensor.SendOp)
def send(op: tensor.SendOp, parts: list[Array]) -> Array:
    return np.stack(parts)


@simulates(tensor.ReceiveOp)
def receive(op: tensor.ReceiveOp, sent: Array) -> tuple[Array, ...]:
    return tuple(sent)


@exchanges(tensor.JoinOp)
def join(op: tensor.JoinOp, parts: list[Array]) -> Array:
    return np.concatenate(parts, axis=op.axis)
