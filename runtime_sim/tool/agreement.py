"""How far outputs are from the reference's, token by token, and how far they may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compiler.bmodel import Stage
from dialects.weights import stored_bits
from runtime_sim.arrays import Array


@dataclass(frozen=True)
class Agreement:
    """An output on any number of tokens; lengths are Euclidean norms of what it has for one."""

    products: Array  # [tokens] of each with the reference's
    given: Array  # [tokens] squares of its lengths
    wanted: Array  # [tokens] squares of the reference's lengths
    decided: Array  # [tokens] bool: where it has to agree by itself, as no rounding can make it another

    @classmethod
    def of(cls, given: Array, wanted: Array, decided: Array | None = None) -> Agreement:
        """Of two arrays [tokens, ...] of the same shape."""
        a, b = (array.reshape(len(wanted), -1).astype(np.float64) for array in (given, wanted))
        decided = np.ones(len(wanted), bool) if decided is None else decided
        return cls((a * b).sum(1), (a * a).sum(1), (b * b).sum(1), decided)

    def __add__(self, other: Agreement) -> Agreement:
        pairs = zip(self.parts, other.parts, strict=True)
        return Agreement(*(np.concatenate(pair) for pair in pairs))

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        return self.products, self.given, self.wanted, self.decided

    @property
    def worst(self) -> int:
        """The token of the lowest cosine, of those that are decided where there are any."""
        return worst_token(self._of_decided(self.cosines, 2.0))

    @property
    def furthest(self) -> int:
        """The token whose length is missed by most, of the same."""
        return worst_token(-self._of_decided(self.stretches, -1.0))

    def _of_decided(self, values: Array, otherwise: float) -> Array:
        return np.where(self.decided, values, otherwise) if self.decided.any() else values

    @property
    def cosine(self) -> float:
        """Of a typical token: the median. Of the whole, a few tokens of large values would decide."""
        return float(np.median(self.cosines))

    @property
    def stretch(self) -> float:
        """By what part of itself the reference's length is missed for a typical token."""
        return float(np.median(self.stretches))

    @property
    def cosines(self) -> Array:
        """[tokens]. Two zero vectors point the same way; one alone points nowhere."""
        lengths = np.sqrt(self.given * self.wanted)
        of_zero = np.where(self.given == self.wanted, 1.0, 0.0)
        return np.where(lengths == 0, of_zero, self.products / np.where(lengths == 0, 1, lengths))

    @property
    def stretches(self) -> Array:
        """[tokens]: 0.5 for half or one and a half of the reference's length."""
        ratios = np.sqrt(self.given / np.where(self.wanted == 0, 1, self.wanted))
        of_zero = np.where(self.given == 0, 0.0, np.inf)
        return np.where(self.wanted == 0, of_zero, np.abs(ratios - 1))


@dataclass(frozen=True)
class Limits:
    """The worst that counts as agreement."""

    cosine: float  # of a typical token
    stretch: float  # of the same
    token_cosine: float  # of any token
    token_stretch: float

    def broken(self, found: Agreement) -> Iterator[str]:
        """What is beyond the limits, in words; NaN is beyond any."""
        yield from self.broken_by_one(found)
        yield from self.broken_by_most(found)

    def broken_by_most(self, found: Agreement) -> Iterator[str]:
        if not found.cosine >= self.cosine:
            yield f"cosine {found.cosine:.6f}, expected at least {self.cosine}"
        if not found.stretch <= self.stretch:
            yield f"lengths off by {found.stretch:.1%}, expected at most {self.stretch:.1%}"

    def broken_by_one(self, found: Agreement, first: int = 0) -> Iterator[str]:
        """`first` is the number of the first token."""
        if not found.decided.any():
            return
        low, far = found.worst, found.furthest
        if not found.cosines[low] >= self.token_cosine:
            cosine, place = found.cosines[low], first + low
            yield f"cosine {cosine:.6f} at token {place}, expected at least {self.token_cosine}"
        if not found.stretches[far] <= self.token_stretch:
            off, place = found.stretches[far], first + far
            yield f"length off by {off:.1%} at token {place}, expected at most {self.token_stretch:.1%}"


def worst_token(values: Array) -> int:
    """Where the lowest is, or the first that is not a number."""
    return int(np.argmin(np.where(np.isnan(values), -np.inf, values)))


# By the bits of a net's weights. The worst of right files, of SmolLM2-135M and random models: 0.967, 0.053,
# 0.86 and 0.63 with 4 bits (a token of few large values may grow by half); 0.9998, 0.003, 0.999 and 0.014
# with more.
LIMITS = {
    4: Limits(0.9, 0.1, 0.6, 3.0),
    8: Limits(0.995, 0.02, 0.98, 0.1),
    16: Limits(0.999, 0.02, 0.99, 0.1),
}
EXACT = Limits(0.99999, 1e-3, 0.9999, 0.01)  # of embeddings, whose rows are only rounded


def weight_bits(*stages: Stage) -> int:
    """The fewest bits of a weight, by what the file says its coefficients hold; 4 when it says nothing."""
    names = [part.name for stage in stages if stage.coeff for part in stage.coeff.locations]
    found = {bits for name in names if (bits := stored_bits(name)) is not None}
    return min(found & LIMITS.keys(), default=4)
