"""Attention in tensor ops.

One token: every query head on a lane of its own, one softmax for all heads. Many: tokens over the lanes, 64
queries and the heads of one KV head at a time, keys up to the last of those queries.

Scores and masks are in units of log2 e throughout, so that the softmax is one of powers of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce

from compiler.ir.core import Value
from compiler.ir.types import F32, ElementType, TensorType
from dialects import tensor
from dialects.tensor import Lanes, Replicated
from passes.llm_to_tensor.build import Build
from passes.ranges import even_ranges
from passes.tensor_to_chip.placed import round_up

LOG2_E = 1.4426950408889634
ROW_BYTES = 16384  # of scores, per lane, that are worked on at once: fewer heads, then parts of their rows
LOWEST = -1.0e30  # of padding behind a row of scores: far below any masked score that matters


def one_token(build: Build, q: Value, k: Value, v: Value, mask: Value) -> Value:
    """q [1, heads, 1, d], k and v [kv heads, keys, d], mask [1, 1, 1, keys] in DDR -> [1, 1, heads, d]."""
    _, heads, _, width = q.type.shape
    kv_heads, keys, _ = k.type.shape
    q = build.reshape(q, (heads, width), Lanes(0))
    group = heads // kv_heads
    row = build.load(build.reshape(mask, (1, keys), None), Replicated())
    row = build.scalar(tensor.MulOp, build.cast(row, F32, Replicated()), LOG2_E)
    products = [
        matmul(build, build.slice(q, (j * group, 0), (group, width)), head(build, k, j), transpose=True)
        for j in range(kv_heads)
    ]
    scores = build.binary(tensor.AddOp, build.concat(products, 0), row)
    weights, norm = softmax(build, scores, q.type.element)
    parts = [
        matmul(build, build.slice(weights, (j * group, 0), (group, keys)), head(build, v, j), transpose=False)
        for j in range(kv_heads)
    ]
    out = build.binary(tensor.MulOp, build.concat(parts, 0), norm)
    out = build.cast(out, q.type.element, Lanes(0))
    return build.reshape(out, (1, 1, heads, width), Lanes(2))


def head(build: Build, x: Value, index: int, rows: int | None = None) -> Value:
    """Matrix `index` of [heads, rows, d] as [rows, d], perhaps only its first rows."""
    *lead, length, width = x.type.shape
    rows = rows or length
    zeros = [0] * (len(lead) - 1)
    one = build.slice(x, (*zeros, index, 0, 0), (*(1 for _ in lead), rows, width))
    return build.reshape(one, (rows, width), Lanes(0))


def matmul(build: Build, a: Value, b: Value, transpose: bool, start: Value | None = None) -> Value:
    columns = b.type.shape[0 if transpose else 1]
    type_ = TensorType((*a.type.shape[:-1], columns), F32, a.type.layout)
    return build.add(tensor.MatmulOp(a, b, start, transpose_b=transpose, types=[type_]))


def softmax(build: Build, scores: Value, element: ElementType) -> tuple[Value, Value]:
    """2**(x - max) of each row in 16 bit, not yet divided, and 1 / its sum in f32.

    Dividing the product with v afterwards is cheaper, and rounds less. The maximum is taken after the mask
    was added, so a row that is masked everywhere stays finite.
    """
    *lead, keys = scores.type.shape
    last = len(lead)
    padded = round_up(keys, build.spec.eu_items(F32.bytes))  # rows that are reduced in two steps
    if padded != keys:
        type_ = TensorType((*lead, padded), F32, scores.type.layout)
        scores = build.add(tensor.PadOp(scores, value=LOWEST, types=[type_]))
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


def many_tokens(
    build: Build, q: Value, keys: Sequence[Value], values: Sequence[Value], mask: Value, start: int
) -> Value:
    """q [1, heads, n, d] of the tokens from `start` on; keys and values [1, kv heads, n_i, d] of all runs of
    tokens
    so far, this one last; mask [1, 1, all, all] in DDR -> [1, n, heads, d]."""
    _, heads, count, width = q.type.shape
    blocks = []
    for first in range(0, count, build.spec.lanes):
        size = min(build.spec.lanes, count - first)
        block = build.reshape(
            build.slice(q, (0, 0, first, 0), (1, heads, size, width)), (heads, size, width), Lanes(1)
        )
        visible = start + first + size
        rows = build.slice(mask, (0, 0, start + first, 0), (1, 1, size, visible))
        rows = build.load(build.reshape(rows, (1, size, visible), None), Lanes(1))
        rows = build.scalar(tensor.MulOp, build.cast(rows, F32, Lanes(1)), LOG2_E)
        blocks.append(query_block(build, block, keys, values, rows))
    return build.reshape(build.concat(blocks, 0), (1, count, heads, width), Lanes(1))


def query_block(build: Build, q: Value, keys: Sequence[Value], values: Sequence[Value], mask: Value) -> Value:
    """q [heads, queries, d], mask [1, queries, visible keys] -> [queries, heads * d]."""
    heads, queries, width = q.type.shape
    kv_heads = keys[0].type.shape[1]
    group = heads // kv_heads
    most = max(1, ROW_BYTES // (F32.bytes * mask.type.shape[2]))
    columns = []
    for j in range(kv_heads):
        for some in even_ranges(group, 1, most):
            part = build.slice(q, (j * group + some.start, 0, 0), (some.size, queries, width))
            out = build.permute(head_group(build, part, keys, values, j, mask), (1, 0, 2))
            columns.append(build.reshape(out, (queries, some.size * width), Lanes(0)))
    return build.concat(columns, 1)


def head_group(
    build: Build, q: Value, keys: Sequence[Value], values: Sequence[Value], index: int, mask: Value
) -> Value:
    """Query heads [group, queries, d] that share KV head `index`; 16 bit [group, queries, d]."""
    visible = mask.type.shape[2]
    pieces = [(i, count) for i, count in enumerate(visible_rows(keys, visible)) if count]
    products = [matmul(build, q, head(build, keys[i], index, n), transpose=True) for i, n in pieces]
    scores = build.binary(tensor.AddOp, build.concat(products, 2), mask)
    weights, norm = softmax(build, scores, q.type.element)
    group, queries, _ = q.type.shape
    out, first = None, 0
    for i, n in pieces:
        part = build.slice(weights, (0, 0, first), (group, queries, n))
        out = matmul(build, part, head(build, values[i], index, n), transpose=False, start=out)
        first += n
    assert out is not None
    return build.cast(build.binary(tensor.MulOp, out, norm), q.type.element, Lanes(1))


def visible_rows(pieces: Sequence[Value], visible: int) -> list[int]:
    """How many rows of each piece are among the first `visible`."""
    counts = []
    for piece in pieces:
        counts.append(max(0, min(piece.type.shape[2], visible)))
        visible -= piece.type.shape[2]
    return counts
