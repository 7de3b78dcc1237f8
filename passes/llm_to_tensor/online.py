"""Attention to one block of keys after the other, by a softmax that goes on (Milakov and Gimelshein 2018).

What a query has seen is a maximum and two sums, which a larger maximum scales down. Maxima are rounded up to
the score of a whole power of two, so that this rounds nothing.
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
    STEPS,
    KeyValues,
    Queries,
    Scores,
    masked_scores,
    powers,
    sink_weight,
    weighted_values,
)
from passes.llm_to_tensor.pieces import Part
from passes.tensor.build import Build

LEAST_SUM = 2.0**-120  # of weights: that of a query which is shown nothing is 0, and its mean is to be finite


@dataclass(frozen=True)
class State:
    """What some queries have seen so far.

    highest: f32 [rows, .., 1], the score of a whole power of two, above all others; sums: f32
    [rows, .., d + 1], those of the values times their weights below it, and in the last column of these.
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
    last, element = len(queries[0].q.type.shape) - 1, queries[0].q.type.element
    scores = filled(build, masked_scores(build, queries, kv, parts, rules))
    highest = build.add(tensor.ReduceOp(scores, kind="max", axis=last))
    known = rules.sinks if before is None else before.highest
    if known is not None:
        highest = build.binary(tensor.MaxOp, highest, known)
    highest = of_whole_power(build, highest, element)
    weights = powers(build, scores, highest, element, rules)
    starts = None if before is None else [*rescaled(build, queries, before, highest)]
    return State(highest, weighted_values(build, queries, kv, parts, weights, starts))


def filled(build: Build, scores: Value) -> Value:
    """Rows of scores as they are reduced in two steps."""
    columns = round_up(scores.type.shape[-1], build.spec.eu_items(F32.bytes))
    return build.pad(scores, columns, LOWEST)


def of_whole_power(build: Build, scores: Value, element: ElementType) -> Value:
    """The least scores of whole powers of two that are not below these."""
    steps = STEPS[element]
    whole = build.unary(tensor.CeilOp, build.scalar(tensor.MulOp, scores, 1 / steps))
    return build.scalar(tensor.MulOp, whole, float(steps))


def rescaled(build: Build, queries: Sequence[Queries], state: State, highest: Value) -> Iterator[Value]:
    """The sums of each of the queries as if the maximum had been `highest` all along."""
    shrunk = build.binary(tensor.SubOp, state.highest, highest)
    steps = STEPS[queries[0].q.type.element]
    factor = build.add(tensor.Exp2WholeOp(build.scalar(tensor.MulOp, shrunk, 1 / steps)))
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
        total = build.binary(tensor.AddOp, total, sink_weight(build, sinks, state.highest, element))
    norm = build.add(tensor.ReciprocalOp(build.scalar(tensor.MaxOp, total, LEAST_SUM)))
    return build.cast(build.binary(tensor.MulOp, sums, norm), element, layout)
