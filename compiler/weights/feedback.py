"""From floats to codes, column by column: later ones make up for what rounding earlier ones did to outputs.

With H the second moments of the inputs, e H e^T is the mean square of the output's error where a row is off
by e. With H = R R^T and R upper triangular it is |e R|^2, and item j of e R is R[j, j] times

    e[j] + sum over i < j of e[i] R[i, j] / R[j, j]

which the code of column j brings as near to zero as it can, given those before it. Source: Frantar and others
2022, "GPTQ", as Chee and others 2023, "QuIP", section 4.1, write it without an inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from compiler.weights.groups import GridSearch, check_decodes, check_scheme, roots_of
from compiler.weights.moments import Moments
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Floats, Quantized, joined, to_float32

ROWS = 1024  # worked on at once: their errors in a group's columns fit a cache
Map: TypeAlias = Callable[[Callable[[int], Quantized], Iterable[int]], Iterable[Quantized]]


@dataclass(frozen=True)
class Span:
    """Some inputs, in the order in which their columns are rounded, and how later ones follow earlier."""

    start: int
    order: Array  # [n]: groups as wholes, those of larger inputs first, and so in each group
    importance: Floats  # [n] R[j, j]**2: what an error counts that no later column can make up for
    follow: Floats  # [n, n] R[i, j] / R[j, j]
    settled: Floats  # [groups, group, group] what the columns of a group come to when none of them is rounded

    @classmethod
    def of(cls, start: int, square: Floats, group: int, rows: int) -> Span:
        order = larger_first(np.diagonal(square), group)
        upper = factor(square, order, len(square) / max(1, rows))
        diagonal = np.diagonal(upper)
        follow = (upper / diagonal).astype(np.float32)
        inside = [follow[i : i + group, i : i + group] for i in range(0, len(order), group)]
        importance = (diagonal**2).astype(np.float32)
        return cls(start, order, importance, follow, np.linalg.inv(np.stack(inside)))

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + len(self.order))


def larger_first(squares: Floats, group: int) -> Array:
    """Groups of neighbours stay together, as they share a scale that is chosen when the first is rounded."""
    grouped = squares.reshape(-1, group)
    groups = np.argsort(-grouped.sum(axis=1), kind="stable")
    inside = np.argsort(-grouped, axis=1, kind="stable")
    found: Array = (groups[:, None] * group + inside[groups]).reshape(-1)
    return found


def factor(square: Floats, order: Array, part: float) -> Floats:
    """R of inputs in an order, f64, damped by a part. A lower factor of H from behind is R from behind."""
    backwards = order[::-1]
    moments = square[np.ix_(backwards, backwards)].astype(np.float64)
    moments[np.diag_indices_from(moments)] += damping(np.diagonal(moments), part)
    found: Floats = np.linalg.cholesky(moments)[::-1, ::-1]
    return found


def damping(squares: Floats, part: float) -> Floats:
    """What to add to inputs' squares [n], f64: products that these have by chance, and others have not, are
    then relied on less. There are more of them the fewer rows were summed for as many inputs (Ledoit and Wolf
    2004, "A well-conditioned estimator for large-dimensional covariance matrices").

    It is a part of the geometric mean of an input's own and of what all have: as much for each would drown
    most where a few are large. With twice inputs / rows, errors in outputs of SmolLM2-135M on other texts
    stay as they are, within 1%, whether from 2,048 tokens or 24,576.
    """
    mean = float(squares.mean()) or 1.0
    return np.where(squares > 0, part * np.sqrt(squares * mean), mean)


@dataclass(frozen=True)
class Feedback:
    """What serves all weights with the same inputs."""

    spans: list[Span]

    @classmethod
    def of(cls, moments: Moments, group: int) -> Feedback:
        pairs = zip(moments.spans, moments.squares, strict=True)
        return cls([Span.of(span.start, square, group, moments.rows) for span, square in pairs])

    def quantize(self, weight: Array, scheme: Scheme, run: Map = map) -> Quantized:
        """Store a float weight [rows, columns] as codes whose errors make up for each other in the outputs.

        Scales and zeros are searched as `compiler.weights.groups` does, for what a group's columns are to be
        when it is their turn. Raises ValueError as `quantize` there. `run` may call for some rows at the same
        time.
        """
        check_scheme(scheme, weight.shape)
        starts = range(0, len(weight), ROWS)
        parts = [*run(lambda start: self._some(weight[start : start + ROWS], scheme), starts)]
        found = joined(parts)
        assert isinstance(found, Quantized)
        check_decodes(found)
        return found

    def _some(self, weight: Array, scheme: Scheme) -> Quantized:
        """Some rows, which have nothing to do with others."""
        roundings = [Rounding(span, to_float32(weight[:, span.columns]), scheme) for span in self.spans]
        made = zip(*(rounding.run() for rounding in roundings), strict=True)
        codes, scales, zeros = (np.concatenate(each, axis=1) for each in made)
        stored = scales.astype(scheme.scale.numpy)
        return Quantized(codes, stored, zeros.astype(np.uint8) if scheme.zeros else None, scheme)


class Rounding:
    """Some rows of a span's columns on their way to codes; arrays here are [columns, rows], in its order."""

    def __init__(self, span: Span, weight: Floats, scheme: Scheme) -> None:
        self.span, self.scheme = span, scheme
        self.weight = np.ascontiguousarray(weight.T[span.order])
        self.errors = np.zeros_like(self.weight)
        self.codes = np.empty(self.weight.shape, scheme.codes)
        self.roots = roots_of(span.importance)
        self.search = GridSearch(scheme, len(weight))

    def run(self) -> tuple[Array, Floats, Floats]:
        """Codes [rows, columns], scales and zeros [rows, groups], in the order of the weight."""
        columns, rows = self.weight.shape
        size = self.scheme.group
        scales, zeros = np.empty((2, columns // size, rows), np.float32)
        for start in range(0, columns, size):
            number = self.span.order[start] // size
            scales[number], zeros[number] = self.group(slice(start, start + size))
        codes = np.empty_like(self.codes)
        codes[self.span.order] = self.codes
        return codes.T, scales.T, zeros.T

    def group(self, group: slice) -> tuple[Floats, Floats]:
        """Round the columns of a group: its scales and zeros [rows].

        These are chosen for what its columns would be could each make up for all errors before it.
        """
        before, follow = slice(0, group.start), self.span.follow
        wanted = follow[before, group].T @ self.errors[before]
        settled = self.span.settled[group.start // self.scheme.group].T
        search, search.roots = self.search, self.roots[group, None]
        search.run((self.weight[group] + settled @ wanted).T)
        inside = np.ascontiguousarray(follow[group, group].T)
        errors = self.errors[group]
        for column, target in enumerate(wanted):
            target += self.weight[group.start + column] + inside[column, :column] @ errors[:column]
            codes = search.nearest(target)
            self.codes[group.start + column] = codes
            errors[column] = self.weight[group.start + column] - (codes - search.zero) * search.scale
        return search.scale, search.zero
