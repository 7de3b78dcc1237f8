"""Inputs of linears divided in what makes them, and their weights multiplied by as much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from compiler.weights.equalize import Reader, best_factors, divided
from compiler.weights.moments import Moments, Squares
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Floats, to_float32
from driver.calibration.folds import Fold
from driver.calibration.kept import Scaled, Vector
from frontend.binding import Weights

ONE = np.ones(1, np.float32)


def multiply_readers(
    weights: Weights,
    folds: Sequence[Fold],
    schemes: Mapping[str, Scheme],
    importance: Mapping[str, Floats],
    jobs: int,
) -> dict[str, Floats]:
    """Put in the place of parameters what is divided and multiplied, where all matrices of a fold become
    codes by `schemes`, each by itself; gives how inputs count then.
    """
    chosen = schemes.keys() & importance.keys()
    possible = [fold for fold in folds if chosen >= {*fold.readers, *fold.rows}]

    def factors(fold: Fold) -> Floats:
        return divide(weights, fold, schemes, Squares(importance[fold.readers[0]], 1))

    found = dict(importance)
    with ThreadPoolExecutor(jobs) as pool:
        for fold, by in zip(possible, pool.map(factors, possible), strict=True):
            for name in fold.rows:
                multiply(weights, name, rows=1 / by[:, None])
            for name in fold.readers:
                multiply(weights, name, columns=by)
                found[name] = importance[name] / by**2
    return found


def multiply(weights: Weights, name: str, columns: Floats = ONE, rows: Floats = ONE) -> None:
    """Put a matrix times factors in the place of another."""
    made = weights.made.get(name)
    before = made if isinstance(made, Scaled) else Scaled.of(weights.tensors[name])
    weights.made[name] = replace(before, columns=before.columns * columns, rows=before.rows * rows)


def divide(
    weights: Weights, fold: Fold, schemes: Mapping[str, Scheme], inputs: Moments | Squares
) -> Floats:
    """Divide vectors by the factors [inputs] that serve the readers best, which are returned."""
    readers = [Reader(weights.read_floats(name), schemes[name]) for name in fold.readers]
    by = best_factors(readers, inputs)
    if fold.vectors:
        first, *others = fold.vectors
        by = divide_vector(weights, first, by, fold.offset)
        for name in others:
            divide_vector(weights, name, by, fold.offset)
    return by


def divide_vector(weights: Weights, name: str, by: Floats, offset: float) -> Floats:
    """Put a vector that is divided in the place of another; by what it is, as 16 bits cannot hold all."""
    before, half = to_float32(weights.read_floats(name)), np.dtype(weights.half)
    values, exact = divided(before, by, half, offset)
    weights.made[name] = Vector(weights.tensors[name], values)
    return exact
