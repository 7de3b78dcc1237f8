"""Attention in tensor ops: queries stay, and keys and values come in pieces (`pieces.py`).

Scores and masks are in units of log2 e throughout, so that the softmax is one of powers of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce

from compiler.ir.core import Value
from compiler.ir.types import F32, ElementType, TensorType
from compiler.sizes import round_up
from dialects import tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.pieces import Part, Piece, parts_within
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build

LOG2_E = 1.4426950408889634
LOWEST = -1.0e30  # of padding behind a row of scores: below any masked score
MASKED = -1.0e29  # the least that a mask adds: in units of log2 e, and with scores, it stays above LOWEST

HIDDEN = -9984.0  # what a client adds where a key is hidden


@dataclass(frozen=True)
class Mask:
    """What hides keys: the client's mask [1, 1, tokens, keys] in DDR, and perhaps each query's first key.

    first: f32 [1, tokens, 1] of this run, in local memory; those before it are hidden too.
    """

    rows: Value
    first: Value | None = None


@dataclass(frozen=True)
class Scores:
    """What becomes of the scores before their softmax.

    mask: f32 [.., keys], in units of log2 e, one column for each key; cap: they are bent to -cap..cap first;
    sinks: one more logit f32 for each row of scores [rows, .., 1], in units of log2 e, which takes part in
    the sum only.
    """

    mask: Value
    cap: float = 0.0
    sinks: Value | None = None


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of neighbouring tokens from `start` on, in order; pieces of both hold the same ones."""

    heads: int
    keys: Sequence[Piece]
    values: Sequence[Piece]
    start: int = 0

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


def query_factor(scale: float, cap: float) -> float:
    """What queries are multiplied by: their scores are then in units of log2 e, or ready for `capped`."""
    return 2 * scale / cap if cap else scale * LOG2_E


def sink_offset(cap: float) -> float:
    """What scores are too large by, in units of log2 e, which matters to nothing but sinks."""
    return cap * LOG2_E


def attend(
    build: Build, queries: Sequence[Queries], kv: KeyValues, parts: Sequence[Part], scores: Scores
) -> Value:
    """Attention of all queries to some keys: one softmax, products with the values added up part by part.

    The mask has one column for each row of the parts. Gives 16 bit, the queries' results joined along axis 0,
    so [rows of all, .., d].
    """
    like = queries[0].q.type
    found = masked_scores(build, queries, kv, parts, scores)
    weights, norm = softmax(build, found, like.element, scores.sinks)
    out = weighted_values(build, queries, kv, parts, weights)
    return build.cast(build.binary(tensor.MulOp, out, norm), like.element, like.layout)


def masked_scores(
    build: Build, queries: Sequence[Queries], kv: KeyValues, parts: Sequence[Part], rules: Scores
) -> Value:
    """[rows of all, .., columns] f32; each part begins at a whole unit of columns."""
    unit = column_unit(build, queries)
    masks = split(build, rules.mask, [part.rows.size for part in parts], unit)
    found = [products(build, queries, kv.keys[part.index], part.rows) for part in parts]
    if rules.cap:
        found = [capped(build, each, rules.cap) for each in found]
    scores = aligned(build, found, unit, LOWEST)
    return build.binary(tensor.AddOp, scores, aligned(build, masks, unit, 0.0))


def products(build: Build, queries: Sequence[Queries], keys: Piece, rows: Range) -> Value:
    """Scores of all queries with some keys of one piece, joined along axis 0."""
    found = [matmul(build, some.q, keys.head(some.head, rows), transpose=True) for some in queries]
    return build.concat(found, 0)


def capped(build: Build, scores: Value, cap: float) -> Value:
    """cap * (tanh(s / cap) + 1) in units of log2 e, of scores 2 s / cap; to a softmax the 1 is nothing."""
    parts = [
        build.scalar(tensor.MulOp, build.add(tensor.SigmoidOp(part)), 2 * cap * LOG2_E, compact=False)
        for part in column_slices(build, scores)
    ]
    return build.concat(parts, len(scores.type.shape) - 1)


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


def softmax(
    build: Build, scores: Value, element: ElementType, sinks: Value | None = None
) -> tuple[Value, Value]:
    """2**(x - max) of each row in 16 bit, not yet divided, and 1 / its sum in f32, with the sinks in it.

    Dividing the product with v afterwards is cheaper, and rounds less. The maximum is taken after the mask
    was added, so a row that is masked everywhere stays finite.
    """
    *lead, keys = scores.type.shape
    last = len(lead)
    padded = round_up(keys, build.spec.eu_items(F32.bytes))  # rows that are reduced in two steps
    scores = build.pad(scores, padded, LOWEST)
    highest = build.add(tensor.ReduceOp(scores, kind="max", axis=last))
    weights, totals = [], []
    if sinks is not None:
        highest = build.binary(tensor.MaxOp, highest, sinks)
        totals.append(build.add(tensor.Exp2Op(build.binary(tensor.SubOp, sinks, highest))))
    for part in column_slices(build, scores):
        power = build.add(tensor.Exp2Op(build.binary(tensor.SubOp, part, highest)))
        totals.append(build.add(tensor.ReduceOp(power, kind="sum", axis=last)))
        weights.append(build.cast(power, element, power.type.layout))
    total = reduce(partial(build.binary, tensor.AddOp), totals)
    return build.concat(weights, last), build.add(tensor.ReciprocalOp(total))


def column_slices(build: Build, x: Value) -> Iterator[Value]:
    """f32 [.., n] in parts along n that take little room each."""
    *lead, columns = x.type.shape
    unit = build.spec.eu_items(F32.bytes)
    unit_bytes = tensor.rows_per_lane(x.type, build.spec.lanes) * unit * F32.bytes
    for part in even_ranges(columns, unit, build.spec.work_bytes // unit_bytes):
        yield build.slice(x, (*(0 for _ in lead), part.start), (*lead, part.size))


def load_mask(
    build: Build, rows: Value, layout: Lanes | Replicated, first: Value | None = None
) -> Value:
    """Rows of the mask [.., keys] in units of log2 e, f32; `first` [.., 1]: see `hide_before`."""
    local = build.cast(build.load(rows, layout), F32, layout)
    if rows.type.element == F32:  # it may hold numbers whose product is -inf; one of 16 bit is the client's
        local = build.scalar(tensor.MaxOp, local, MASKED)
    if first is not None:
        local = hide_before(build, local, first)
    return build.scalar(tensor.MulOp, local, LOG2_E)


def hide_before(build: Build, mask: Value, first: Value) -> Value:
    """The mask less HIDDEN for each column that a query's first one is away, where it lies behind."""
    shape = (*(1 for _ in mask.type.shape[:-1]), mask.type.shape[-1])
    columns = build.load(build.add(tensor.IotaOp(types=[TensorType(shape, F32)])), Replicated())
    away = build.scalar(tensor.MaxOp, build.binary(tensor.SubOp, first, columns), 0.0)
    return build.binary(tensor.AddOp, mask, build.scalar(tensor.MulOp, away, HIDDEN))
