"""One rule per llm op: the tensor ops that compute it for a run of tokens.

Layouts: a call with one token keeps a vector's features over the lanes and, inside attention, heads over the
lanes; a call with more keeps tokens over the lanes throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.ir.core import Op, Value
from compiler.ir.module import Builder, Function
from compiler.ir.types import F32, Attribute, ElementType, TensorType
from compiler.target.spec import ChipSpec
from dialects import llm, tensor
from dialects.builtin import ReturnOp
from dialects.nets import NetInput, NetOutput, net_of, token_count
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor import attention
from passes.llm_to_tensor.build import Build
from passes.llm_to_tensor.pieces import Computed, Piece, history_pieces
from passes.ranges import Range, even_ranges

WORK_BYTES = 16384  # of local memory, per lane, for the temporaries of norms and rope
MATRIX_READERS = (llm.LinearOp, llm.GatedLinearOp, ReturnOp)  # they read a norm as 16 bit
HALF_READERS = (llm.AttentionOp, llm.KvConcatOp, llm.PermuteOp)  # as these do a rotated head

RULES: dict[type[Op], Callable[..., Any]] = {}


def lowers(op_class: type[Op]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        RULES[op_class] = rule
        return rule

    return register


@dataclass(frozen=True)
class Parameter:
    """Checkpoint tensors joined along axis 0: known by name until an op needs them in DDR."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    scheme: Attribute | None = None  # how they are stored; None for as they are


@dataclass(frozen=True)
class TableRows:
    """Rows of a named table, picked by position ids."""

    table: str
    ids: Value
    shape: tuple[int, ...]


def token_runs(total: int, most: int, tail: int, lanes: int) -> list[Range]:
    """Even runs of at most `most` tokens; with `tail`, so many rows of lanes at the end are a run as well."""
    body = (-(-total // lanes) - tail) * lanes if tail else total
    if body <= 0:
        return [Range(0, total)]
    runs = [*even_ranges(body, lanes, -(-most // lanes))]
    return [*runs, Range(body, total)] if body < total else runs


class TokenLowering:
    """Lowers one function, run of tokens by run of tokens."""

    def __init__(self, function: Function, tokens: int, tail: int, spec: ChipSpec):
        self.function = function
        self.net = net_of(function)
        self.tokens = token_count(function)
        self.runs = token_runs(self.tokens, tokens or self.tokens, tail, spec.lanes)
        self.build = Build(Builder.before(function.terminator), spec)
        self.op: Op = function  # the one being lowered
        self.pieces: dict[Value, list[Piece]] = {}  # keys and values so far
        self.start = 0
        self.stop = 0
        self.values: dict[Value, Any] = {}
        self.halves: dict[Value, Value] = {}
        self.rope_tables: dict[tuple[Value, float | None], Value] = {}
        self.scaled: set[Value] = set()  # queries that the factor of the scores is in already
        self.lanes = spec.lanes

    @property
    def decode(self) -> bool:
        return self.tokens == 1

    def run(self, ops: Sequence[Op], terminator: Op) -> list[Value]:
        """Lower all runs; returns the function's results, runs joined along the token axis."""
        parts: list[list[Value]] = []
        for run in self.runs:
            self.start, self.stop = run.start, run.stop
            self.values, self.halves, self.rope_tables = {}, {}, {}
            for op in ops:
                self.lower(op)
            self.build.loc = terminator.loc
            parts.append([self.stored(value) for value in terminator.operands])
        return [
            p[0] if len(p) == 1 else self.build.concat(list(p), self.token_axis(result))
            for p, result in zip(zip(*parts, strict=True), self.net.outputs, strict=True)
        ]

    def token_axis(self, stated: NetInput | NetOutput) -> int:
        """The axis of an argument or result that its tokens are on, which only axis 1 can be so far."""
        if stated.tokens != 1:
            where = "no axis" if stated.tokens is None else f"axis {stated.tokens}"
            self.function.fail(f"has the tokens of {stated.name!r} on {where}, only axis 1 has a lowering")
        return stated.tokens

    def lower(self, op: Op) -> None:
        self.op, self.build.loc = op, op.loc
        rule = RULES.get(type(op))
        if rule is None:
            op.fail("has no lowering to the tensor dialect")
        result = rule(self, op)
        if isinstance(result, Value) and isinstance(result.type.layout, Lanes):
            self.check_shape(op, result)
        if result is not None:
            self.values[op.results[0]] = result

    def check_shape(self, op: Op, result: Value) -> None:
        """Refuse an op that would mix tokens, or be lowered as if its axes meant something else."""
        shape, axis = list(op.results[0].type.shape), result.type.layout.axis
        if not self.decode and shape[axis] == self.tokens:
            shape[axis] = self.stop - self.start
        if tuple(shape) != result.type.shape and not isinstance(op, llm.KvConcatOp):
            op.fail(f"has no lowering to the tensor dialect: it would give {result.type}")

    def tokens_on(self, value: Value, *axes: int) -> int:
        """The axis of an operand that its tokens are on; refuses the op when it is none of these."""
        layout = self.values[value].type.layout if value in self.values else Lanes(1)
        if not isinstance(layout, Lanes) or layout.axis not in axes:
            expected = " or ".join(map(str, axes))
            self.op.fail(f"takes an operand with its tokens on axis {expected}, not one of {layout}")
        return layout.axis

    # ----------------------------------------------------------------------------------------------- values

    def get(self, value: Value) -> Value:
        """The local f32 or 16-bit array of an llm value; an argument is loaded, this run's tokens of it."""
        if value not in self.values:
            if value.owner is not self.function.block:
                self.op.fail(f"reads {value.type} from an op that gives no array")
            self.values[value] = self.load_argument(value)
        found = self.values[value]
        if isinstance(found, Value) and tensor.in_ddr(found.type):
            self.op.fail(f"works on {value.type} of an embedding, which has no lowering")
        if not isinstance(found, Value):
            self.op.fail(f"takes weights or a table, {value.type}, where it needs an array")
        return found

    def argument(self, value: Value) -> Value:
        """An array that must be an argument of the function, in DDR."""
        if value.owner is not self.function.block:
            self.op.fail(f"takes {value.type} that is computed where it needs an argument of the function")
        return value

    def load_argument(self, value: Value) -> Value:
        """Activations [1, tokens, width] (or [1, width]), in f32; where accumulated upon, in whole slots."""
        rows, shape = self.token_rows(value), value.type.shape
        if len(shape) < 2 or shape[0] != 1:
            self.op.fail(f"reads an argument {value.type}, expected [1, tokens, width] or [1, width]")
        layout = Lanes(len(rows.type.shape) - 1) if self.decode else Lanes(1)
        local = self.build.load(rows, Lanes(layout.axis, self.decode))
        return self.build.cast(local, F32, layout)

    def token_rows(self, value: Value) -> Value:
        """This run's tokens of an argument in DDR, tokens on axis 1."""
        stated = self.net.inputs[value.index]
        if stated.tokens is not None or not self.decode:
            self.token_axis(stated)
        if self.decode or self.stop - self.start == value.type.shape[1]:
            return value
        shape = list(value.type.shape)
        starts = [0] * len(shape)
        starts[1], shape[1] = self.start, self.stop - self.start
        return self.build.slice(value, starts, shape)

    def token_slices(self, width: int) -> Iterator[tuple[int, int]]:
        """(start, size) of parts of this run's tokens, `width` f32 wide, that keep temporaries small."""
        count, lanes = self.stop - self.start, self.lanes
        most = max(1, WORK_BYTES // (4 * width)) * lanes
        parts = -(-count // most)
        size = -(-count // parts // lanes) * lanes
        for start in range(0, count, size):
            yield start, min(size, count - start)

    def some_tokens(self, value: Value, start: int, size: int) -> Value:
        """Tokens [start, start + size) of this run, in f32; of an argument, only those are loaded."""
        shape = list(value.type.shape)
        starts = [0] * len(shape)
        shape[1] = size
        if value.owner is not self.function.block or value in self.values:
            starts[1] = start
            return self.build.slice(self.f32(value), starts, shape)
        starts[self.token_axis(self.net.inputs[value.index])] = self.start + start
        local = self.build.load(self.build.slice(value, starts, shape), Lanes(1))
        return self.build.cast(local, F32, Lanes(1))

    def head_slices(self, x: Value) -> Iterator[Value]:
        """[1, heads, tokens, d] as parts with fewer heads, so that twice their size in f32 is small."""
        _, heads, tokens, width = x.type.shape
        head_bytes = 8 * width * -(-tokens // self.lanes)
        parts = -(-heads // max(1, WORK_BYTES // head_bytes))
        size = -(-heads // (1 if self.decode else parts))
        for start in range(0, heads, size):
            count = min(size, heads - start)
            yield self.build.slice(x, (0, start, 0, 0), (1, count, tokens, width))

    def accumulator(self, value: Value) -> Value:
        """An array to add to. An argument is loaded anew rather than kept in local memory for so long."""
        if not self.decode and value.owner is self.function.block:
            return self.load_argument(value)
        return self.f32(value)

    def f32(self, value: Value) -> Value:
        found = self.get(value)
        return found if found.type.element == F32 else self.build.cast(found, F32, found.type.layout)

    def half(self, value: Value) -> Value:
        """The array rounded to the llm value's own type, as matrix operands need it."""
        if value not in self.halves:
            self.halves[value] = self.make_half(value)
        return self.halves[value]

    def make_half(self, value: Value) -> Value:
        found = self.get(value)
        if found.type.element != F32:
            return found
        layout = found.type.layout
        assert isinstance(layout, Lanes)
        return self.build.cast(found, value.type.element, Lanes(layout.axis))

    def stored(self, value: Value) -> Value:
        """A result of the function, written to DDR; heads that were rounded for attention are not rounded
        again.
        """
        found = self.values.get(value)
        if isinstance(found, Value) and found.type.layout is None:
            return found
        self.build.loc = value.owner.loc if isinstance(value.owner, Op) else self.build.loc
        return self.build.add(tensor.StoreOp(self.rounded(value)))

    def rounded(self, value: Value) -> Value:
        permuted = value.defining(llm.PermuteOp)
        if permuted is not None and permuted.x in self.halves:
            return self.build.permute(self.halves[permuted.x], permuted.order)
        for user in value.users:
            if isinstance(user, llm.PermuteOp) and user.y in self.halves:
                inverse = [user.order.index(axis) for axis in range(len(user.order))]
                return self.build.permute(self.halves[user.y], inverse)
        return self.for_client(value)

    def for_client(self, value: Value) -> Value:
        found = self.get(value)
        if found.type.element != F32:
            return found
        layout = found.type.layout
        assert isinstance(layout, Lanes)
        return self.build.cast(found, value.type.element, Lanes(layout.axis, compact=self.decode))

    # ---------------------------------------------------------------------------------------------- weights

    def parameter(self, value: Value) -> Parameter:
        found = self.values.get(value)
        if not isinstance(found, Parameter):
            self.op.fail(f"takes {value.type} that is computed where it needs a weight")
        return found

    def weight(self, value: Value, element: ElementType) -> Value:
        """A parameter in DDR."""
        parameter = self.parameter(value)
        type_ = TensorType(parameter.shape, element, parameter.scheme)
        return self.build.add(tensor.WeightOp(sources=list(parameter.names), types=[type_]))

    def row(self, value: Value, like: Value) -> Value:
        """A parameter [width] in f32, laid out to meet the last axis of `like`."""
        type_ = like.type
        shape = (*(1 for _ in type_.shape[:-1]), type_.shape[-1])
        source = self.build.reshape(self.weight(value, F32), shape, None)
        over_lanes = isinstance(type_.layout, Lanes) and type_.layout.axis == len(shape) - 1
        layout: Attribute = Lanes(len(shape) - 1, compact=True) if over_lanes else Replicated()
        return self.build.load(source, layout)


# ----------------------------------------------------------------------------------------------- named data


@lowers(llm.WeightOp)
def weight(low: TokenLowering, op: llm.WeightOp) -> Parameter:
    return Parameter((op.name,), op.y.type.shape, op.y.type.layout)


@lowers(llm.ConcatWeightsOp)
def concat_weights(low: TokenLowering, op: llm.ConcatWeightsOp) -> Parameter:
    names = tuple(name for value in op.operands for name in low.parameter(value).names)
    return Parameter(names, op.y.type.shape, op.y.type.layout)


@lowers(llm.TableOp)
def table(low: TokenLowering, op: llm.TableOp) -> Parameter:
    return Parameter((op.name,), op.y.type.shape)


@lowers(llm.GatherRowsOp)
def gather_rows(low: TokenLowering, op: llm.GatherRowsOp) -> TableRows:
    parameter = low.parameter(op.table)
    return TableRows(parameter.names[0], low.argument(op.ids), parameter.shape)


@lowers(llm.EmbeddingOp)
def embedding(low: TokenLowering, op: llm.EmbeddingOp) -> Value:
    if op.scale != 1.0:
        op.fail(f"scale {op.scale} is not supported")
    source, ids = low.weight(op.table, op.y.type.element), low.token_rows(low.argument(op.ids))
    type_ = TensorType((*ids.type.shape, source.type.shape[1]), op.y.type.element)
    return low.build.add(tensor.GatherOp(source, ids, types=[type_]))


# --------------------------------------------------------------------------------------------------- linear


@lowers(llm.LinearOp)
def linear(low: TokenLowering, op: llm.LinearOp) -> Value:
    x, element = low.half(op.x), op.x.type.element
    if not low.decode:
        low.tokens_on(op.x, len(op.x.type.shape) - 2)
    w = low.weight(op.weight, element)
    start = None
    if op.residual is not None:
        start = low.accumulator(op.residual)
        if op.bias is not None:
            start = low.build.binary(tensor.AddOp, start, low.row(op.bias, start), compact=False)
    type_ = TensorType((*x.type.shape[:-1], w.type.shape[0]), F32, Lanes(x.type.layout.axis))
    y = low.build.add(tensor.LinearOp(x, w, start, types=[type_]))
    if op.bias is not None and start is None:
        y = low.build.binary(tensor.AddOp, y, low.row(op.bias, y))
    return y


@lowers(llm.GatedLinearOp)
def gated_linear(low: TokenLowering, op: llm.GatedLinearOp) -> Value:
    if op.act != "silu":
        op.fail(f"activation {op.act!r} has no lowering to the tensor dialect")
    if (op.gate_bias is None) != (op.up_bias is None):
        op.fail("with a bias on one of its two products has no lowering to the tensor dialect")
    x, element = low.half(op.x), op.x.type.element
    gate, up = low.weight(op.gate_weight, element), low.weight(op.up_weight, element)
    type_ = TensorType((*x.type.shape[:-1], gate.type.shape[0]), element, Lanes(x.type.layout.axis))
    row = (*(1 for _ in type_.shape[:-1]), type_.shape[-1])
    biases = [
        low.build.reshape(low.weight(bias, F32), row, None) for bias in (op.gate_bias, op.up_bias) if bias
    ]
    return low.build.add(tensor.GatedLinearOp(x, gate, up, biases, types=[type_]))


@lowers(llm.ArgmaxOp)
def argmax(low: TokenLowering, op: llm.ArgmaxOp) -> Value:
    return low.build.add(tensor.StoreOp(low.build.add(tensor.ArgmaxOp(low.get(op.x)))))


# ----------------------------------------------------------------------------------- norms and element-wise


@lowers(llm.RmsNormOp)
def rms_norm(low: TokenLowering, op: llm.RmsNormOp) -> Value:
    """x * rsqrt(mean(x**2) + eps) * w in f32, some tokens or heads at a time."""
    if low.decode:
        x = low.f32(op.x)
        return normalized(low, x, op, gain_of(low, op, x))
    if len(op.x.type.shape) == 4:
        return norm_of_heads(low, op)
    low.tokens_on(op.x, 1)
    rounded = all(isinstance(user, MATRIX_READERS) for user in op.y.users)
    gain, parts = None, []
    for start, size in low.token_slices(op.x.type.shape[-1]):
        x = low.some_tokens(op.x, start, size)
        gain = gain or gain_of(low, op, x)
        y = normalized(low, x, op, gain)
        parts.append(low.build.cast(y, op.x.type.element, Lanes(1)) if rounded else y)
    return low.build.concat(parts, 1)


def norm_of_heads(low: TokenLowering, op: llm.RmsNormOp) -> Value:
    """A norm of each head, [1, heads, tokens, d], or [1, tokens, heads, d] with heads moved outside
    meanwhile.
    """
    x = low.f32(op.x)
    if low.tokens_on(op.x, 1, 2) == 1:
        heads = normalized_heads(low, op, low.build.permute(x, (0, 2, 1, 3)))
        return low.build.permute(heads, (0, 2, 1, 3))
    return normalized_heads(low, op, x)


def normalized_heads(low: TokenLowering, op: llm.RmsNormOp, x: Value) -> Value:
    gain = gain_of(low, op, x)
    return low.build.concat([normalized(low, part, op, gain) for part in low.head_slices(x)], 1)


def gain_of(low: TokenLowering, op: llm.RmsNormOp, x: Value) -> Value | None:
    if op.weight is None:
        return None
    gain = low.row(op.weight, x)
    return low.build.scalar(tensor.AddOp, gain, op.offset) if op.offset else gain


def normalized(low: TokenLowering, x: Value, op: llm.RmsNormOp, gain: Value | None) -> Value:
    build, last = low.build, len(x.type.shape) - 1
    square = build.binary(tensor.MulOp, x, x)
    mean = build.add(tensor.ReduceOp(square, kind="sum", axis=last, scale=1.0 / x.type.shape[last]))
    root = build.add(tensor.RsqrtOp(build.scalar(tensor.AddOp, mean, op.eps)))
    y = build.binary(tensor.MulOp, x, root)
    return y if gain is None else build.binary(tensor.MulOp, y, gain)


@lowers(llm.AddOp)
def add(low: TokenLowering, op: llm.AddOp) -> Value:
    return binary(low, op, tensor.AddOp)


@lowers(llm.MulOp)
def mul(low: TokenLowering, op: llm.MulOp) -> Value:
    return binary(low, op, tensor.MulOp)


def binary(low: TokenLowering, op: llm.AddOp | llm.MulOp, kind: type[tensor.Binary]) -> Value:
    """The result may be accumulated upon, so it lies in whole slots."""
    x = low.f32(op.lhs)
    if op.value is not None:
        return low.build.scalar(kind, x, op.value, compact=False)
    assert op.rhs is not None
    rhs = low.f32(op.rhs)
    if x.type.layout.axis != rhs.type.layout.axis:
        op.fail(f"takes arrays of {x.type.layout} and {rhs.type.layout}, which must be one")
    return low.build.binary(kind, x, rhs, compact=False)


# -------------------------------------------------------------------------------------------- data movement


@lowers(llm.SliceOp)
def slice_(low: TokenLowering, op: llm.SliceOp) -> Value:
    if op.step != 1:
        op.fail("a step has no lowering to the tensor dialect")
    x = low.get(op.x)
    if not low.decode and op.axis == x.type.layout.axis:
        op.fail("of tokens has no lowering to the tensor dialect")
    starts, sizes = [0] * len(x.type.shape), list(x.type.shape)
    starts[op.axis], sizes[op.axis] = op.start, op.stop - op.start
    return low.build.slice(x, starts, sizes)


@lowers(llm.ReshapeOp)
def reshape(low: TokenLowering, op: llm.ReshapeOp) -> Value | TableRows:
    """Splitting a row into heads, or joining them, moves data where features are over the lanes."""
    found = low.values.get(op.x)
    if isinstance(found, TableRows):
        return found
    x = low.get(op.x)
    if not low.decode and (low.tokens_on(op.x, 1), op.shape[:2]) != (1, (1, low.tokens)):
        op.fail("that moves the tokens has no lowering to the tensor dialect")
    shape = op.shape if low.decode else run_shape(low, op.shape)
    if low.decode:
        axis = 2 if len(shape) in (3, 4) else len(shape) - 1
        if len(shape) != len(x.type.shape):
            return split_or_join_heads(low, x, shape, axis)
        return low.build.reshape(x, shape, Lanes(axis))
    return low.build.reshape(x, shape, Lanes(1))


def split_or_join_heads(low: TokenLowering, x: Value, shape: tuple[int, ...], axis: int) -> Value:
    """[1, 1, heads * d], features over the lanes, to [1, 1, heads, d], heads over the lanes, or back.

    Transposing moves 64 dimensions of all heads at a time; other head sizes take the way through DDR.
    """
    width = max(shape, x.type.shape, key=len)[-1]
    if width % low.lanes == 0:
        return low.build.add(tensor.RelayoutOp(x, types=[TensorType(shape, x.type.element, Lanes(axis))]))
    stored = low.build.reshape(low.build.add(tensor.StoreOp(x)), shape, None)
    return low.build.load(stored, Lanes(axis))


def run_shape(low: TokenLowering, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with tokens on axis 1, for this run's tokens."""
    return (shape[0], low.stop - low.start, *shape[2:])


@lowers(llm.PermuteOp)
def permute(low: TokenLowering, op: llm.PermuteOp) -> Value | None:
    if op.x.owner is low.function.block:  # history: loaded by the op that appends to it
        return None
    return low.build.permute(low.get(op.x), op.order)


# ------------------------------------------------------------------------------------------------ attention


@lowers(llm.RopeOp)
def rope(low: TokenLowering, op: llm.RopeOp) -> Value:
    width = op.x.type.shape[-1]
    if op.mode != "half" or op.rotary_dim != width:
        op.fail(f"mode {op.mode!r} on {op.rotary_dim} of {width} has no lowering to the tensor dialect")
    x = low.f32(op.x)
    if not low.decode:
        low.tokens_on(op.x, 2)
    scale = score_scale(op)
    rows = rope_rows(low, op, scale)
    if scale is not None:
        low.scaled.add(op.y)
    rounded = all(isinstance(user, HALF_READERS) for user in op.y.users)
    parts = [low.build.add(tensor.RopeOp(part, rows)) for part in low.head_slices(x)]
    if rounded:
        parts = [low.build.cast(part, op.x.type.element, part.type.layout) for part in parts]
    return low.build.concat(parts, 1)


def score_scale(op: llm.RopeOp) -> float | None:
    """The factor of the scores, if y is only ever a query: it then goes into the few numbers of the
    table's rows.
    """
    scales = {
        user.scale if isinstance(user, llm.AttentionOp) and user.q is op.y else None for user in op.y.users
    }
    (scale,) = scales if len(scales) == 1 else (None,)
    return None if scale is None else scale * attention.LOG2_E


def rope_rows(low: TokenLowering, op: llm.RopeOp, scale: float | None) -> Value:
    """cos and sin of this run's positions, perhaps scaled; one gather serves all heads of q and k."""
    if (op.cos, scale) not in low.rope_tables:
        rows = gathered_rows(low, op) if scale is None else rope_rows(low, op, None)
        scaled = rows if scale is None else low.build.scalar(tensor.MulOp, rows, scale)
        low.rope_tables[op.cos, scale] = scaled
    return low.rope_tables[op.cos, scale]


def gathered_rows(low: TokenLowering, op: llm.RopeOp) -> Value:
    cos, sin = low.values.get(op.cos), low.values.get(op.sin)
    if not isinstance(cos, TableRows) or not isinstance(sin, TableRows):
        op.fail("takes tables that are no rows of named tables")
    if cos.ids is not sin.ids or cos.shape != sin.shape:
        op.fail("takes rows of cos and sin at different positions")
    positions, width = cos.shape
    type_ = TensorType((positions, 2 * width), F32)
    source = low.build.add(tensor.RopeTableOp(cos=cos.table, sin=sin.table, types=[type_]))
    shape = (1, low.stop - low.start, 2 * width)
    layout: Attribute = Replicated() if low.decode else Lanes(1)
    gather = tensor.GatherOp(source, low.token_rows(cos.ids), types=[TensorType(shape, F32, layout)])
    layout = Replicated() if low.decode else Lanes(2)
    return low.build.reshape(low.build.add(gather), (1, *shape), layout)


@lowers(llm.KvConcatOp)
def kv_concat(low: TokenLowering, op: llm.KvConcatOp) -> None:
    """What an argument holds of earlier calls, and the new token."""
    source = op.history.defining(llm.PermuteOp)
    if source is None or source.x.owner is not low.function.block or not low.decode:
        op.fail("expected a history argument and one new token")
    new = Computed(low.build, low.half(op.new))
    low.pieces[op.y] = [*history_pieces(low.build, source.x), new]


@lowers(llm.AttentionOp)
def attend(low: TokenLowering, op: llm.AttentionOp) -> Value:
    if op.softcap or op.sinks is not None or op.mask is None:
        op.fail("softcap, sinks or a missing mask have no lowering to the tensor dialect")
    if op.k.type.shape[-1] != op.v.type.shape[-1]:
        op.fail("keys and values of different width have no lowering to the tensor dialect")
    mask = low.argument(op.mask)
    if not low.decode:
        for value in (op.q, op.k, op.v):
            low.tokens_on(value, 2)
    q = low.get(op.q)
    if op.q not in low.scaled:
        q = low.build.scalar(tensor.MulOp, low.f32(op.q), op.scale * attention.LOG2_E)
    q = low.build.cast(q, op.q.type.element, q.type.layout)
    kv = attention.KeyValues(op.k.type.shape[1], *(pieces_of(low, value) for value in (op.k, op.v)))
    if low.decode:
        return attention.one_token(low.build, q, kv, mask)
    if op.visible.kind in ("all", "masked") and len(low.runs) > 1:
        op.fail(f"with {op.visible.kind} keys visible has no lowering in several runs of tokens")
    before = op.k.type.shape[2] - low.tokens
    positions = Range(before + low.start, before + low.stop)
    return attention.many_tokens(low.build, q, kv, mask, op.visible, positions)


def pieces_of(low: TokenLowering, value: Value) -> list[Piece]:
    """The pieces of keys or values up to those of this run."""
    pieces = low.pieces.setdefault(value, [])
    if value.defining(llm.KvConcatOp) is None:
        pieces.append(Computed(low.build, low.half(value)))
    return pieces
