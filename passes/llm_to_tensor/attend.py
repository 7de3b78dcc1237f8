"""Attention in tensor ops: queries stay, and keys and values come in pieces (`pieces.py`).

Scores and masks count steps of powers of two, `STEPS` for each, so that the softmax is one of powers of two,
made of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from compiler.ir.core import Value
from compiler.ir.types import BF16, F16, F32, I8, ElementType, TensorType
from compiler.sizes import round_up
from dialects import tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.pieces import Part, Piece, parts_within
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build

LOG2_E = 1.4426950408889634
LOWEST = -1.0e30  # of padding behind a row of scores: below any masked score

# By the type of the queries. Those of bf16 have room for the factor with which `tensor.softmax_weights` is
# made of the fewest instructions; those of f16 have not.
STEPS = {BF16: 256, F16: 1}

# The least that a mask adds. In steps it is so large that scores do not change it, so a row that is masked
# everywhere takes the mean, but not so large that the 127 powers of a softmax are lost beside it.
MASKED = -1.0e9

HIDDEN = -9984.0  # what a client adds where a key is hidden


@dataclass(frozen=True)
class Mask:
    """What hides keys: the client's mask [1, 1, tokens, keys] in DDR, and perhaps each query's first key.

    unit: of the scores, in which it is to count; first: f32 [1, tokens, 1] of this run, in local memory, and
    those before it are hidden too.
    """

    rows: Value
    unit: float
    first: Value | None = None


@dataclass(frozen=True)
class Scores:
    """What becomes of the scores before their softmax.

    mask: f32 [.., keys], in their unit, one column for each key, or i8 as `tensor.hiding` makes it: a key
    that it hides weighs nothing, but may raise the maximum; None where nothing is hidden. room: how many
    bytes of them in a lane become weights at a time; cap: they are bent to -cap..cap first; sinks: one more
    logit f32 for each row of scores [rows, .., 1], in their unit, which takes part in the sum only.
    """

    mask: Value | None
    room: int
    cap: float = 0.0
    sinks: Value | None = None

    @property
    def added(self) -> Value | None:
        """The mask, where it is one of scores."""
        return None if self.mask is None or self.mask.type.element == I8 else self.mask

    @property
    def hiding(self) -> Value | None:
        """The mask, where it is one of weights."""
        return None if self.mask is self.added else self.mask


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of neighbouring tokens from `start` on, in order; pieces of both hold the same ones."""

    heads: int
    keys: Sequence[Piece]
    values: Sequence[Piece]
    start: int = 0

    def __post_init__(self) -> None:
        sizes = [[piece.size for piece in pieces] for pieces in (self.keys, self.values)]
        assert sizes[0] == sizes[1], f"pieces of keys and values have {sizes} tokens"

    @property
    def tokens(self) -> Range:
        return Range(self.start, self.start + sum(piece.size for piece in self.keys))

    def parts(self, wanted: Range) -> list[Part]:
        """Where these tokens lie, as far as they are here."""
        return parts_within([piece.size for piece in self.keys], wanted.moved(-self.start))


@dataclass(frozen=True)
class Queries:
    """q [rows, .., d] of 16 bit, of heads that share KV head `head`."""

    head: int
    q: Value


def score_unit(element: ElementType) -> float:
    """What is 1 in scores of e, for queries of this type."""
    return STEPS[element] * LOG2_E


def query_factor(scale: float, cap: float, element: ElementType) -> float:
    """What queries are multiplied by: their scores are then in their unit, or ready for `capped`."""
    return 2 * scale / cap if cap else scale * score_unit(element)


def sink_offset(cap: float, element: ElementType) -> float:
    """What scores are too large by, which matters to nothing but sinks."""
    return cap * score_unit(element)


def attend(
    build: Build, queries: Sequence[Queries], kv: KeyValues, parts: Sequence[Part], scores: Scores
) -> Value:
    """Attention of all queries to some keys: one softmax, products with the values added up part by part.

    A mask has one column for each row of the parts. Gives 16 bit, the queries' results joined along axis 0,
    so [rows of all, .., d].
    """
    like = queries[0].q.type
    found = masked_scores(build, queries, kv, parts, scores)
    weights, norm = softmax(build, found, like.element, scores)
    out = weighted_values(build, queries, kv, parts, weights)
    return build.cast(build.binary(tensor.MulOp, out, norm), like.element, like.layout)


def masked_scores(
    build: Build, queries: Sequence[Queries], kv: KeyValues, parts: Sequence[Part], rules: Scores
) -> Value:
    """[rows of all, .., columns] f32; each part begins at a whole unit of columns."""
    unit = column_unit(build, queries)
    found = [products(build, queries, kv.keys[part.index], part.rows) for part in parts]
    if rules.cap:
        found = [capped(build, each, rules, queries[0].q.type.element) for each in found]
    scores = aligned(build, found, unit, LOWEST)
    if rules.added is None:
        return scores
    masks = split(build, rules.added, [part.rows.size for part in parts], unit)
    return build.binary(tensor.AddOp, scores, aligned(build, masks, unit, 0.0), compact=False)


def products(build: Build, queries: Sequence[Queries], keys: Piece, rows: Range) -> Value:
    """Scores of all queries with some keys of one piece, joined along axis 0."""
    found = [matmul(build, some.q, keys.head(some.head, rows), transpose=True) for some in queries]
    return build.concat(found, 0)


def capped(build: Build, scores: Value, rules: Scores, element: ElementType) -> Value:
    """cap * (tanh(s / cap) + 1) in the unit of scores, of scores 2 s / cap; to a softmax the 1 is nothing."""
    factor = 2 * rules.cap * score_unit(element)
    axis, parts = portions(build, scores, rules.room)
    bent = [build.add(tensor.SigmoidOp(portion(build, scores, axis, part))) for part in parts]
    return build.concat([build.scalar(tensor.MulOp, each, factor, compact=False) for each in bent], axis)


def weighted_values(
    build: Build,
    queries: Sequence[Queries],
    kv: KeyValues,
    parts: Sequence[Part],
    weights: Value,
    starts: Sequence[Value] | None = None,
) -> Value:
    """weights @ values in f32, [rows of all, .., d]; the products of a query add up over the parts, on top
    of what it starts with.
    """
    sums: list[Value | None] = [None] * len(queries) if starts is None else [*starts]
    column = 0
    for part in parts:
        row = 0
        for i, some in enumerate(queries):
            count, *middle, _ = some.q.type.shape
            corner = (row, *(0 for _ in middle), column)
            left = build.slice(weights, corner, (count, *middle, part.rows.size))
            right = kv.values[part.index].head(some.head, part.rows)
            sums[i] = matmul(build, left, right, transpose=False, start=sums[i])
            row += count
        column += round_up(part.rows.size, column_unit(build, queries))
    return build.concat([one for one in sums if one is not None], 0)


def column_unit(build: Build, queries: Sequence[Queries]) -> int:
    """Left operands, such as the weights of a part, begin on an EU width."""
    return build.spec.eu_items(queries[0].q.type.element.bytes)


def matmul(build: Build, a: Value, b: Value, transpose: bool, start: Value | None = None) -> Value:
    columns = b.type.shape[0 if transpose else 1]
    type_ = TensorType((*a.type.shape[:-1], columns), F32, a.type.layout)
    return build.add(tensor.MatmulOp(a, b, start, transpose_b=transpose, types=[type_]))


def aligned(build: Build, parts: Sequence[Value], unit: int, fill: float) -> Value:
    """The parts along the last axis, each but the last filled up to whole units."""
    *before, last = parts
    padded = [build.pad(part, round_up(part.type.shape[-1], unit), fill) for part in before]
    return build.concat([*padded, last], len(last.type.shape) - 1)


def split(build: Build, mask: Value, sizes: Sequence[int], unit: int) -> list[Value]:
    """The mask's columns in parts of these sizes, or whole where no part but the last ends within a unit."""
    if all(size % unit == 0 for size in sizes[:-1]):
        return [mask]
    *lead, _ = mask.type.shape
    parts, first = [], 0
    for size in sizes:
        parts.append(build.slice(mask, (*(0 for _ in lead), first), (*lead, size)))
        first += size
    return parts


def softmax(build: Build, scores: Value, element: ElementType, rules: Scores) -> tuple[Value, Value]:
    """2**(x - max) of each row in 16 bit, not yet divided, and 1 / its sum in f32, with the sinks in it.

    Dividing the product with v afterwards is cheaper, and rounds less; the sum is that of the weights as they
    were rounded. The maximum is taken after the mask was added, so a row that is masked everywhere stays
    finite.
    """
    *lead, keys = scores.type.shape
    last = len(lead)
    padded = round_up(keys, build.spec.eu_items(F32.bytes))  # rows that are reduced in two steps
    scores = build.pad(scores, padded, LOWEST)
    highest = build.add(tensor.ReduceOp(scores, kind="max", axis=last))
    if rules.sinks is not None:
        highest = build.binary(tensor.MaxOp, highest, rules.sinks)
    weights = powers(build, scores, highest, element, rules)
    total = build.add(tensor.ReduceOp(weights, kind="sum", axis=last))
    if rules.sinks is not None:
        total = build.binary(tensor.AddOp, sink_weight(build, rules.sinks, highest, element), total)
    return weights, build.add(tensor.ReciprocalOp(total))


def powers(build: Build, scores: Value, highest: Value, element: ElementType, rules: Scores) -> Value:
    """The weights of scores below their highest, or one above that, in 16 bit; 0 where they are hidden."""
    axis, parts = portions(build, scores, rules.room)
    found = []
    for part in parts:
        x, top = (portion(build, each, axis, part) for each in (scores, highest))
        hidden = rules.hiding and portion(build, rules.hiding, axis, part)
        type_ = replace(x.type, element=element)
        found.append(build.add(tensor.SoftmaxWeightsOp(x, top, hidden, steps=STEPS[element], types=[type_])))
    return build.concat(found, axis)


def sink_weight(build: Build, sinks: Value, highest: Value, element: ElementType) -> Value:
    """As `powers`, of sinks in f32."""
    below = build.binary(tensor.SubOp, sinks, highest)
    return build.add(tensor.Exp2Op(build.scalar(tensor.MulOp, below, 1 / STEPS[element])))


def portions(build: Build, x: Value, room: int) -> tuple[int, Iterator[Range]]:
    """The axis along which f32 [rows, .., n] falls into parts of about `room` bytes each, and these parts.

    Whole rows lie as an array of their own would. Pieces of rows do not: an instruction that takes them
    beside what it broadcasts takes twice as long.
    """
    *lead, columns = x.type.shape
    axis = 0 if lead[0] > 1 and tensor.axis_over_lanes(x.type) != 0 else len(lead)
    unit = build.spec.eu_items(F32.bytes) if axis else 1
    bytes_ = tensor.rows_per_lane(x.type, build.spec.lanes) * columns * F32.bytes
    size = x.type.shape[axis]
    return axis, even_ranges(size, unit, room * size // (bytes_ * unit))


def portion(build: Build, x: Value, axis: int, part: Range) -> Value:
    """That part of an array along an axis, all of it where it is broadcast there."""
    if x.type.shape[axis] == 1:
        return x
    starts, sizes = [0] * len(x.type.shape), [*x.type.shape]
    starts[axis], sizes[axis] = part.start, part.size
    return build.slice(x, starts, sizes)


def load_mask(build: Build, rows: Value, layout: Lanes | Replicated, mask: Mask) -> Value:
    """Rows of the mask [.., keys] in the unit of scores, f32; `mask.first` [.., 1]: see `hide_before`."""
    local = build.scalar(tensor.MaxOp, build.cast(build.load(rows, layout), F32, layout), MASKED)
    if mask.first is not None:
        local = hide_before(build, local, mask.first)
    return build.scalar(tensor.MulOp, local, mask.unit)


def hide_before(build: Build, mask: Value, first: Value) -> Value:
    """The mask less HIDDEN for each column that a query's first one is away, where it lies behind."""
    shape = (*(1 for _ in mask.type.shape[:-1]), mask.type.shape[-1])
    columns = build.load(build.add(tensor.IotaOp(types=[TensorType(shape, F32)])), Replicated())
    away = build.scalar(tensor.MaxOp, build.binary(tensor.SubOp, first, columns), 0.0)
    return build.binary(tensor.AddOp, mask, build.scalar(tensor.MulOp, away, HIDDEN))
