"""What is known of the inputs of a weight: the second moments of them, or their squares alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.sizes import round_up
from compiler.weights.stored import Floats

WIDEST = 4096  # inputs whose products are summed: a square takes 64 MiB, and its factors the cube in time


@dataclass(frozen=True)
class Squares:
    """The sum of the squares of some rows, f64 [inputs], and how many there are."""

    total: Floats
    rows: int

    def __add__(self, other: Squares) -> Squares:
        return Squares(self.total + other.total, self.rows + other.rows)

    @property
    def mean(self) -> Floats:
        return (self.total / max(1, self.rows)).astype(np.float32)

    def cost(self, errors: Floats) -> float:
        """The squares of what errors [rows, inputs] of a weight add to outputs, were inputs independent."""
        return float(np.sum(errors**2, axis=0) @ self.total)


@dataclass(frozen=True)
class Moments:
    """The sums of the products of two inputs over some rows, f32, in squares along the diagonal.

    Products of inputs that no square has together are taken to vanish.
    """

    squares: Sequence[Floats]  # [n, n] of each span of inputs, one behind the other
    rows: int

    def __add__(self, other: Moments) -> Moments:
        pairs = zip(self.squares, other.squares, strict=True)
        return Moments([one + more for one, more in pairs], self.rows + other.rows)

    @property
    def mean(self) -> Floats:
        """The mean square of each input, f32 [inputs]."""
        totals = np.concatenate([np.diagonal(square) for square in self.squares])
        return totals / np.float32(max(1, self.rows))

    @property
    def spans(self) -> list[slice]:
        """Which inputs each square is of."""
        stops = np.cumsum([len(square) for square in self.squares]).tolist()
        return [slice(stop - len(square), stop) for stop, square in zip(stops, self.squares, strict=True)]

    def cost(self, errors: Floats) -> float:
        """The squares of what errors [rows, inputs] of a weight add to its outputs."""
        pairs = zip(self.spans, self.squares, strict=True)
        return sum(float(np.vdot(errors[:, span] @ square, errors[:, span])) for span, square in pairs)

    def times(self, factors: Floats) -> Moments:
        """Those of the inputs times factors [inputs]."""
        scaled = [
            square * np.outer(factors[span], factors[span])
            for square, span in zip(self.squares, self.spans, strict=True)
        ]
        return Moments(scaled, self.rows)


def spans(inputs: int, group: int) -> list[slice]:
    """Inputs in as few spans of whole groups as are no wider than `WIDEST`, or than a group."""
    count = -(-inputs // max(WIDEST, group))
    width = round_up(-(-inputs // count), group)
    return [slice(start, min(start + width, inputs)) for start in range(0, inputs, width)]
