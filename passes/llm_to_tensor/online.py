"""Attention to one block of keys after the other, by a softmax that goes on (Milakov and Gimelshein 2018).

What a query has seen is a maximum and two sums, which a larger maximum scales down. Maxima are rounded up to
whole numbers: as scores are in units of log2 e, they then scale by powers of two, which rounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compiler.ir.core import Value
from compiler.ir.types import F32, Attribute, ElementType
from compiler.sizes import round_up
from dialects import tensor
from passes.llm_to_tensor.attend import (
    LOWEST,
    KeyValues,
    Queries,
    Scores,
    column_slices,
    masked_scores,
    weighted_values,
)
from passes.llm_to_tensor.pieces import Part
from passes.tensor.build import Build


@dataclass(frozen=True)
class State:
    """What some queries have seen so far.

    highest: f32 [rows, .., 1], a whole number that no score is above; sums: f32 [rows, .., d + 1], those of
    the values times 2**(score - highest), and in the last column of these weights themselves.
    """

    highest: Value
    sums: Value


def met(
    build: Build,
    queries: Sequence[Queries],
    kv: KeyValues,
    parts: Sequence[Part],
    rules: Scores,
    before: State | None = None,
) -> State:
    """The state after a block of keys, whose values are `counted`; `before` it, if any keys came before.

    Sinks are no block: `finished` adds them, below a maximum that the first block has raised to theirs.
    """
    last = len(queries[0].q.type.shape) - 1
    scores = filled(build, masked_scores(build, queries, kv, parts, rules))
    highest = build.add(tensor.ReduceOp(scores, kind="max", axis=last))
    known = rules.sinks if before is None else before.highest
    if known is not None:
        highest = build.binary(tensor.MaxOp, highest, known)
    highest = build.unary(tensor.CeilOp, highest)
    weights = powers(build, scores, highest, queries[0].q.type.element)
    starts = None if before is None else [*rescaled(build, queries, before, highest)]
    return State(highest, weighted_values(build, queries, kv, parts, weights, starts))


def filled(build: Build, scores: Value) -> Value:
    """Rows of scores as they are reduced in two steps."""
    columns = round_up(scores.type.shape[-1], build.spec.eu_items(F32.bytes))
    return build.pad(scores, columns, LOWEST)


def powers(build: Build, scores: Value, highest: Value, element: ElementType) -> Value:
    """2**(score - highest) in 16 bit."""
    parts = []
    for part in column_slices(build, scores):
        power = build.add(tensor.Exp2Op(build.binary(tensor.SubOp, part, highest)))
        parts.append(build.cast(power, element, power.type.layout))
    return build.concat(parts, len(scores.type.shape) - 1)


def rescaled(build: Build, queries: Sequence[Queries], state: State, highest: Value) -> Iterator[Value]:
    """The sums of each of the queries as if the maximum had been `highest` all along."""
    shrunk = build.binary(tensor.SubOp, state.highest, highest)
    factor = build.add(tensor.Exp2WholeOp(shrunk))
    first = 0
    for some in queries:
        count, *middle, _ = some.q.type.shape
        corner = (first, *(0 for _ in middle), 0)
        ours, by = (
            build.slice(x, corner, (count, *middle, x.type.shape[-1])) for x in (state.sums, factor)
        )
        yield build.binary(tensor.MulOp, ours, by)
        first += count


def finished(
    build: Build, state: State, sinks: Value | None, element: ElementType, layout: Attribute
) -> Value:
    """The mean of the values by their weights, [rows, .., d] of 16 bit."""
    *lead, columns = state.sums.type.shape
    zeros = [0] * len(lead)
    sums = build.slice(state.sums, (*zeros, 0), (*lead, columns - 1))
    total = build.slice(state.sums, (*zeros, columns - 1), (*lead, 1))
    if sinks is not None:
        sink = build.add(tensor.Exp2Op(build.binary(tensor.SubOp, sinks, state.highest)))
        total = build.binary(tensor.AddOp, total, sink)
    norm = build.add(tensor.ReciprocalOp(total))
    return build.cast(build.binary(tensor.MulOp, sums, norm), element, layout)
