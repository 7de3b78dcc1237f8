"""Attention in tensor ops: queries stay, and keys and values come in pieces (`pieces.py`).

One token: every query head on a lane of its own, one softmax for all heads. Many: tokens over the lanes, 64
queries and the heads of one KV head at a time.

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
from dialects.llm import Visible
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.build import Build
from passes.llm_to_tensor.pieces import Part, Piece, parts_within
from passes.ranges import Range, even_ranges

LOG2_E = 1.4426950408889634
ROW_BYTES = 16384  # of scores, per lane, that are worked on at once: fewer heads, then parts of their rows
LOWEST = -1.0e30  # of padding behind a row of scores: below any masked score
MASKED = -1.0e29  # the least that a mask adds: in units of log2 e, and with scores, it stays above LOWEST


@dataclass(frozen=True)
class KeyValues:
    """All keys and values that there are, in the order of their tokens; pieces of both hold the same ones."""

    heads: int
    keys: Sequence[Piece]
    values: Sequence[Piece]

    def parts(self, wanted: Range) -> list[Part]:
        return parts_within([piece.size for piece in self.keys], wanted)


@dataclass(frozen=True)
class Queries:
    """q [rows, .., d] of 16 bit, of heads that share KV head `head`."""

    head: int
    q: Value


def attend(
    build: Build, queries: Sequence[Queries], kv: KeyValues, parts: Sequence[Part], mask: Value
) -> Value:
    """Attention of all queries to some keys: one softmax, products with the values added up part by part.

    mask: [.., keys] in f32, one column for each row of the parts. Gives 16 bit, the queries' results joined
    along axis 0, so [rows of all, .., d].
    """
    like = queries[0].q.type
    unit = build.spec.eu_items(
        like.element.bytes
    )  # left operands, parts of the weights, begin on an EU width
    masks = split(build, mask, [part.rows.size for part in parts], unit)
    found = [products(build, queries, kv.keys[part.index], part.rows) for part in parts]
    scores = aligned(build, found, unit, LOWEST)
    scores = build.binary(tensor.AddOp, scores, aligned(build, masks, unit, 0.0))
    weights, norm = softmax(build, scores, like.element)
    sums: list[Value | None] = [None] * len(queries)
    column = 0
    for part in parts:
        row = 0
        for i, some in enumerate(queries):
            count, *middle, _ = some.q.type.shape
            starts, sizes = (row, *(0 for _ in middle), column), (count, *middle, part.rows.size)
            right = kv.values[part.index].head(some.head, part.rows)
            sums[i] = matmul(
                build, build.slice(weights, starts, sizes), right, transpose=False, start=sums[i]
            )
            row += count
        column += round_up(part.rows.size, unit)
    out = build.concat([one for one in sums if one is not None], 0)
    return build.cast(build.binary(tensor.MulOp, out, norm), like.element, like.layout)


def products(build: Build, queries: Sequence[Queries], keys: Piece, rows: Range) -> Value:
    """Scores of all queries with some keys of one piece, joined along axis 0."""
    found = [matmul(build, some.q, keys.head(some.head, rows), transpose=True) for some in queries]
    return build.concat(found, 0)


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


def softmax(build: Build, scores: Value, element: ElementType) -> tuple[Value, Value]:
    """2**(x - max) of each row in 16 bit, not yet divided, and 1 / its sum in f32.

    Dividing the product with v afterwards is cheaper, and rounds less. The maximum is taken after the mask
    was added, so a row that is masked everywhere stays finite.
    """
    *lead, keys = scores.type.shape
    last = len(lead)
    padded = round_up(keys, build.spec.eu_items(F32.bytes))  # rows that are reduced in two steps
    scores = build.pad(scores, padded, LOWEST)
    highest = build.add(tensor.ReduceOp(scores, kind="max", axis=last))
    weights, totals = [], []
    for part in column_slices(build, scores):
        power = build.add(tensor.Exp2Op(build.binary(tensor.SubOp, part, highest)))
        totals.append(build.add(tensor.ReduceOp(power, kind="sum", axis=last)))
        weights.append(build.cast(power, element, power.type.layout))
    total = reduce(partial(build.binary, tensor.AddOp), totals)
    return build.concat(weights, last), build.add(tensor.ReciprocalOp(total))


def column_slices(build: Build, x: Value) -> Iterator[Value]:
    """f32 [.., n] in parts along n that take at most ROW_BYTES in a lane each."""
    *lead, columns = x.type.shape
    unit = build.spec.eu_items(F32.bytes)
    for part in even_ranges(columns, unit, ROW_BYTES // (unit * F32.bytes)):
        yield build.slice(x, (*(0 for _ in lead), part.start), (*lead, part.size))


def one_token(build: Build, q: Value, kv: KeyValues, mask: Value) -> Value:
    """q [1, heads, 1, d], heads over the lanes; mask [1, 1, 1, keys] in DDR -> [1, 1, heads, d]."""
    _, heads, _, width = q.type.shape
    count, keys = heads // kv.heads, mask.type.shape[3]
    q = build.reshape(q, (heads, width), Lanes(0))
    queries = [
        Queries(start // count, build.slice(q, (start, 0), (count, width)))
        for start in range(0, heads, count)
    ]
    row = load_mask(build, build.reshape(mask, (1, keys), None), Replicated())
    out = attend(build, queries, kv, kv.parts(Range(0, keys)), row)
    return build.reshape(out, (1, 1, heads, width), Lanes(2))


def many_tokens(
    build: Build, q: Value, kv: KeyValues, mask: Value, visible: Visible, positions: Range
) -> Value:
    """q [1, heads, n, d] at these positions of the keys, tokens over the lanes; mask [1, 1, S, T] in DDR, of
    queries at the last positions -> [1, n, heads, d].
    """
    _, heads, count, width = q.type.shape
    *_, tokens, total = mask.type.shape
    blocks = []
    for block in even_ranges(count, build.spec.lanes, 1):
        some = build.slice(q, (0, 0, block.start, 0), (1, heads, block.size, width))
        some = build.reshape(some, (heads, block.size, width), Lanes(1))
        first = positions.start + block.start
        seen = seen_keys(visible, Range(first, first + block.size), total, build.spec.lanes)
        starts, sizes = (0, 0, first - (total - tokens), seen.start), (1, 1, block.size, seen.size)
        rows = build.reshape(build.slice(mask, starts, sizes), sizes[1:], None)
        rows = load_mask(build, rows, Lanes(1))
        blocks.append(query_block(build, some, kv, kv.parts(seen), rows))
    return build.reshape(build.concat(blocks, 0), (1, count, heads, width), Lanes(1))


def seen_keys(visible: Visible, positions: Range, total: int, lanes: int) -> Range:
    """The keys that queries at these positions may see, from a row of lanes on, where matrices start."""
    if visible.kind == "window":
        return Range(max(0, positions.start - visible.size + 1) // lanes * lanes, positions.stop)
    return Range(0, positions.stop if visible.kind == "causal" else total)


def load_mask(build: Build, rows: Value, layout: Lanes | Replicated) -> Value:
    """Rows of the mask in units of log2 e, f32."""
    local = build.cast(build.load(rows, layout), F32, layout)
    if rows.type.element == F32:  # it may hold numbers whose product is -inf; one of 16 bit is the client's
        local = build.scalar(tensor.MaxOp, local, MASKED)
    return build.scalar(tensor.MulOp, local, LOG2_E)


def query_block(build: Build, q: Value, kv: KeyValues, parts: Sequence[Part], mask: Value) -> Value:
    """q [heads, queries, d], mask [1, queries, keys of the parts] -> [queries, heads * d]."""
    heads, queries, width = q.type.shape
    group = heads // kv.heads
    most = max(1, ROW_BYTES // (F32.bytes * mask.type.shape[2]))
    columns = []
    for head in range(heads // group):
        for some in even_ranges(group, 1, most):
            part = build.slice(q, (head * group + some.start, 0, 0), (some.size, queries, width))
            out = build.permute(attend(build, [Queries(head, part)], kv, parts, mask), (1, 0, 2))
            columns.append(build.reshape(out, (queries, some.size * width), Lanes(0)))
    return build.concat(columns, 1)
