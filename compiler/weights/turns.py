"""Rows of attention's heads in turns: later ones make up for what rounding earlier ones did to scores.

A score is the sum over a head's rows of q times k. Where q is off by e [rows], the mean square of its error
is e^T G e, with G the second moments of k; and the other way round. With G = R R^T and R upper triangular it
is |R^T e|^2, as of a row's columns in `compiler.weights.feedback`. Tseng and others 2025, "Model-Preserving
Adaptive Rounding", do so for all rows of a weight, by gradients of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.weights.feedback import factor
from compiler.weights.moments import Moments
from compiler.weights.stored import Array, Floats, Quantized, joined, rectangle

TURNS = 8  # of a head: within one, rows know nothing of each other; 4 and 16 served SmolLM2-135M as well
# Of G: by how far tokens are apart, rotation turns q and k against each other, which products do not know.
# By gradients of SmolLM2-135M on other texts, 0.1 and 0.4 were as good within 2%, 0.01 worse by 10 to 20%.
DAMPING = 0.2


@dataclass(frozen=True)
class Head:
    """One head's rows."""

    order: Array  # [rows] those whose errors count most first
    upper: Floats  # [rows, rows] R in this order

    @classmethod
    def of(cls, square: Floats) -> Head:
        order = np.argsort(-np.diagonal(square), kind="stable")
        return cls(order, factor(square, order, DAMPING))

    def wanted(self, turn: slice, errors: Floats) -> Floats:
        """What to add to the rows of a turn, by the errors [rows, columns] of all before them."""
        before = slice(0, turn.start)
        follow = np.linalg.solve(self.upper[turn, turn].T, self.upper[before, turn].T)
        made: Floats = follow.astype(np.float32) @ errors[before]
        return made


def quantize_in_turns(weight: Floats, squares: Floats, quantize: Callable[[Floats], Quantized]) -> Quantized:
    """Store a weight [heads * rows, columns], some rows at a time; `squares` [heads, rows, rows] are G."""
    heads, size, _ = squares.shape
    known = [Head.of(square) for square in squares]
    errors = np.zeros((heads, size, weight.shape[1]), np.float32)
    places, parts = [], []
    step = -(-size // TURNS)
    for start in range(0, size, step):
        turn = slice(start, min(start + step, size))
        rows = np.concatenate([number * size + head.order[turn] for number, head in enumerate(known)])
        more = [head.wanted(turn, each) for head, each in zip(known, errors, strict=True)]
        part = quantize(weight[rows] + np.concatenate(more))
        errors[:, turn] = (weight[rows] - part.dequantize()).reshape(heads, -1, weight.shape[1])
        places.append(rows)
        parts.append(part)
    found = rectangle(joined(parts), np.argsort(np.concatenate(places)))
    assert isinstance(found, Quantized)
    return found


@dataclass(frozen=True)
class Projected:
    """What makes q or k of all heads: a weight [heads * rows, inputs], a bias, gains of a norm behind it."""

    weight: Floats
    bias: Floats | None  # [heads * rows]
    gains: Floats  # [heads or 1, rows]

    def squares(self, inputs: Moments) -> Floats:
        """The sums of the products of two rows of a head, [heads, rows, rows]."""
        size = self.gains.shape[-1]
        total = np.zeros((len(self.weight) // size, size, size), np.float32)
        for span, square in zip(inputs.spans, inputs.squares, strict=True):
            part = self.weight[:, span].reshape(len(total), size, -1)
            total += part @ square @ part.transpose(0, 2, 1)
        if self.bias is not None:
            rows = self.bias.reshape(len(total), size)
            total += inputs.rows * rows[:, :, None] * rows[:, None, :]
        return self.gained(total)

    def gained(self, squares: Floats) -> Floats:
        return squares * self.gains[:, :, None] * self.gains[:, None, :]


def squares_of_scores(
    query: Projected, key: Projected, inputs: Moments, heads: Sequence[int]
) -> tuple[Floats, Floats]:
    """G of the query's rows and of the key's, [heads, rows, rows]. Each of the key's serves some `heads`."""
    first = np.cumsum((0, *heads[:-1]))
    by_query = np.add.reduceat(query.squares(inputs), first, axis=0)
    by_key = np.repeat(key.squares(inputs), heads, axis=0)
    return query.gained(by_key), key.gained(by_query)
