"""Which parameters make the scores of attention, as the model's graph tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from compiler.ir.core import Value
from compiler.ir.module import Function, Module, walk
from compiler.weights.moments import Moments
from compiler.weights.stored import Floats, to_float32
from compiler.weights.turns import Projected, squares_of_scores
from dialects import llm
from driver.calibration.folds import names_of
from frontend.binding import Weights


@dataclass(frozen=True)
class Side:
    """Parameters by name that make q or k: all heads' rows of a weight, a bias, and a norm's gains."""

    weight: str
    bias: str | None = None
    gains: str | None = None
    offset: float = 0.0  # added to gains before they are used

    def bound(self, full_name: Callable[[str], str]) -> Side:
        bias, gains = (name and full_name(name) for name in (self.bias, self.gains))
        return Side(full_name(self.weight), bias, gains, self.offset)

    def projected(self, weight: Floats, weights: Weights, size: int) -> Projected:
        """With what the other parameters are."""
        bias = None if self.bias is None else to_float32(weights.read_floats(self.bias))
        gains = np.ones(size, np.float32)
        if self.gains is not None:
            gains = to_float32(weights.read_floats(self.gains)) + np.float32(self.offset)
        return Projected(weight, bias, gains.reshape(-1, size))


@dataclass(frozen=True)
class Scores:
    """Heads of `size` rows; each of the key's serves some `heads` of the query."""

    query: Side
    key: Side
    heads: tuple[int, ...]
    size: int

    @property
    def names(self) -> tuple[str, str]:
        return self.query.weight, self.key.weight

    def squares(
        self, query: Floats, key: Floats, weights: Weights, inputs: Moments
    ) -> tuple[Floats, Floats]:
        """How errors in a head's rows of the two weights count together; see `squares_of_scores`."""
        sides = self.query.projected(query, weights, self.size), self.key.projected(key, weights, self.size)
        return squares_of_scores(*sides, inputs, self.heads)

    def bound(self, full_name: Callable[[str], str]) -> Scores:
        """With the full names of parameters."""
        return replace(self, query=self.query.bound(full_name), key=self.key.bound(full_name))


def scores_of(module: Module) -> list[Scores]:
    """Those of all functions, once."""
    return [*dict.fromkeys(scores for function in module.functions() for scores in scores_in(function))]


def scores_in(function: Function) -> Iterator[Scores]:
    """Of q and k that are made of the same by a linear each. A key's bias is left out: it adds about as much
    to all scores of a query, which softmax does not see.
    """
    for op in walk(function):
        if isinstance(op, llm.AttentionOp):
            size = op.k.type.shape[-1]
            query, key = side_of(op.q), side_of(op.k)
            if query is not None and key is not None and query[1] is key[1]:
                yield Scores(query[0], replace(key[0], bias=None), op.heads_of, size)


def side_of(value: Value) -> tuple[Side, Value] | None:
    """What makes q or k, and of what; None where a head is not some rows of a linear, turned or normed."""
    norm: llm.RmsNormOp | None = None
    while isinstance(op := value.owner, llm.LeadsToAttention):
        if isinstance(op, llm.RmsNormOp) and norm is None:
            norm = op
        elif not keeps_rows(op):
            return None
        value = op.passed
    linear = value.defining(llm.LinearOp)
    if linear is None or linear.residual is not None:
        return None
    side = named(linear, norm)
    return None if side is None else (side, linear.x)


def named(linear: llm.LinearOp, norm: llm.RmsNormOp | None) -> Side | None:
    """None where something is not a parameter as it is."""
    values = {"weight": linear.weight, "bias": linear.bias, "gains": None if norm is None else norm.weight}
    given = {part: value for part, value in values.items() if value is not None}
    names = names_of([*given.values()])
    if not names:
        return None
    return Side(**dict(zip(given, names, strict=True)), offset=0.0 if norm is None else norm.offset)


def keeps_rows(op: llm.LeadsToAttention) -> bool:
    """Whether a head's rows go on next to each other."""
    if isinstance(op, llm.PermuteOp):
        return op.order[-1] == len(op.order) - 1
    return isinstance(op, llm.ReshapeOp | llm.RopeOp | llm.KvConcatOp)
