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

    power: f32 [rows, .., 1], the least whole power of two that no score is above; sums: f32
    [rows, .., d + 1], those of the values times their weights below it, and in the last column of these.
    """

    power: Value
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
    if before is None and rules.sinks is not None:
        highest = build.binary(tensor.MaxOp, highest, rules.sinks)
    power = build.unary(tensor.CeilOp, build.scalar(tensor.MulOp, highest, 1 / STEPS[element]))
    if before is not None:
        power = build.binary(tensor.MaxOp, power, before.power)
    weights = powers(build, scores, score_of(build, power, element), element, rules)
    starts = None if before is None else [*rescaled(build, queries, before, power)]
    return State(power, weighted_values(build, queries, kv, parts, weights, starts))


def filled(build: Build, scores: Value) -> Value:
    """Rows of scores as they are reduced in two steps."""
    columns = round_up(scores.type.shape[-1], build.spec.eu_items(F32.bytes))
    return build.pad(scores, columns, LOWEST)


def score_of(build: Build, power: Value, element: ElementType) -> Value:
    """The score whose weight is that power of two."""
    return build.scalar(tensor.MulOp, power, float(STEPS[element]))


def rescaled(build: Build, queries: Sequence[Queries], state: State, power: Value) -> Iterator[Value]:
    """The sums of each of the queries as if the maximum had been at `power` all along."""
    factor = build.add(tensor.Exp2WholeOp(build.binary(tensor.SubOp, state.power, power)))
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
        highest = score_of(build, state.power, element)
        total = build.binary(tensor.AddOp, total, sink_weight(build, sinks, highest, element))
    norm = build.add(tensor.ReciprocalOp(build.scalar(tensor.MaxOp, total, LEAST_SUM)))
    return build.cast(build.binary(tensor.MulOp, sums, norm), element, layout)
