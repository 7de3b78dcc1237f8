"""Codes that make up for each other's errors, for one layer after the other."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from compiler.diagnostics import UserError
from compiler.weights.feedback import Feedback, Map
from compiler.weights.moments import Moments
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Floats, Quantized, to_float32
from compiler.weights.turns import quantize_in_turns
from driver.calibration.dividing import divide
from driver.calibration.folds import Fold
from driver.calibration.kept import Shelf
from driver.calibration.scores import Scores
from frontend.binding import Weights
from frontend.calibration import SQUARES, Measure, Sums


@dataclass
class Settling:
    """Takes what was measured of a layer, and puts codes in the place of its weights.

    `schemes` says which weights become codes here, and how they are stored; of others `importance` gets the
    mean squares of their inputs.
    """

    weights: Weights
    schemes: Mapping[str, Scheme]
    folds: list[Fold]
    scores: list[Scores]
    shelf: Shelf
    jobs: int
    importance: dict[str, Floats] = field(default_factory=dict)

    def measure_of(self, name: str) -> Measure:
        scheme = self.schemes.get(name)
        return SQUARES if scheme is None else Measure(scheme.group)

    def settle(self, sums: Sums) -> bool:
        """Whether something has changed."""
        moments = {name: each for name, each in sums.items() if isinstance(each, Moments)}
        moments = {name: each for name, each in moments.items() if name in self.schemes}
        rest = sums.keys() - moments.keys()
        self.importance.update((name, sums[name].mean) for name in sorted(rest))
        factors: dict[str, Floats] = {}
        for fold in self.folds:
            if set(fold.readers) <= moments.keys():
                moments = self.folded(fold, moments, factors)
        squares = self.squares_of_scores(moments, factors)
        with ThreadPoolExecutor(self.jobs) as pool:
            for names in alike(moments):
                feedback = Feedback.of(moments[names[0]], self.schemes[names[0]].group)
                for name in names:
                    weight = self.floats(name, factors)
                    codes = self.quantized(name, weight, squares.get(name), feedback, pool.map)
                    self.weights.made[name] = self.shelf.put(self.weights.tensors[name], codes)
        return bool(moments)

    def folded(
        self, fold: Fold, moments: Mapping[str, Moments], factors: dict[str, Floats]
    ) -> dict[str, Moments]:
        """Divide the inputs of the readers by the factors that serve these best."""
        before = moments[fold.readers[0]]
        by = divide(self.weights, fold, self.schemes, before)
        factors.update(dict.fromkeys(fold.readers, by))
        return {**moments, **dict.fromkeys(fold.readers, before.times(1 / by))}

    def squares_of_scores(
        self, moments: Mapping[str, Moments], factors: Mapping[str, Floats]
    ) -> dict[str, Floats]:
        """How errors in the rows of a head count together, [heads, rows, rows], by parameter."""
        found: dict[str, Floats] = {}
        for scores in self.scores:
            query, key = scores.names
            if query in moments and key in moments:
                pair = self.floats(query, factors), self.floats(key, factors)
                found[query], found[key] = scores.squares(*pair, self.weights, moments[query])
        return found

    def floats(self, name: str, factors: Mapping[str, Floats]) -> Floats:
        """A weight that multiplies inputs which are divided by factors [inputs]."""
        weight = to_float32(self.weights.read_floats(name))
        return weight * factors[name] if name in factors else weight

    def quantized(
        self, name: str, weight: Floats, squares: Floats | None, feedback: Feedback, run: Map
    ) -> Quantized:
        def quantize(rows: Floats) -> Quantized:
            return feedback.quantize(rows, self.schemes[name], run)

        try:
            return quantize(weight) if squares is None else quantize_in_turns(weight, squares, quantize)
        except ValueError as error:
            raise UserError(f"{name} cannot be quantized: {error}") from error


def alike(moments: Mapping[str, Moments]) -> list[list[str]]:
    """Names by what is one object."""
    found: dict[int, list[str]] = {}
    for name, each in moments.items():
        found.setdefault(id(each), []).append(name)
    return list(found.values())
