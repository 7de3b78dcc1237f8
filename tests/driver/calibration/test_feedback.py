"""What calibration with feedback puts in the place of a layer's weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.types import BF16
from compiler.weights.feedback import Feedback
from compiler.weights.groups import quantize
from compiler.weights.moments import Moments, Squares
from compiler.weights.scheme import Scheme
from driver.calibration.feedback import Settling
from driver.calibration.folds import Fold
from driver.calibration.kept import shelf
from driver.calibration.scores import Scores, Side
from frontend.binding import Weights
from frontend.calibration import SQUARES, Measure
from tests.driver.calibration.given import Given

SCHEME = Scheme(4, 16, True, BF16)
RNG = np.random.default_rng(0)
VALUES = {
    "norm": RNG.uniform(0.5, 2, 32),
    "q": RNG.normal(size=(24, 32)),
    "k": RNG.normal(size=(16, 32)),
    "up": RNG.normal(size=(48, 32)),
    "down": RNG.normal(size=(32, 48)),
    "router": RNG.normal(size=(4, 32)),
}
FOLDS = [Fold(("q", "k"), ("norm",))]


@pytest.fixture
def settling(tmp_path) -> Iterator[Settling]:
    weights = Weights({name: Given(values) for name, values in VALUES.items()})
    with shelf(tmp_path) as kept:
        yield Settling(weights, dict.fromkeys(("q", "k", "up", "down"), SCHEME), FOLDS, [], kept, 2)


def inputs(width: int) -> np.ndarray:
    return RNG.normal(size=(200, width)) @ RNG.normal(size=(width, width)) * RNG.uniform(0.05, 4, width)


def moments_of(x: np.ndarray) -> Moments:
    return Moments([(x.T @ x).astype(np.float32)], len(x))


def measured(x: np.ndarray, inner: np.ndarray) -> dict[str, Any]:
    attended, routed, mid = moments_of(x), Squares((x**2).sum(0), len(x)), moments_of(inner)
    return {"q": attended, "k": attended, "router": routed, "down": mid}


def test_parameters_that_become_codes_are_measured_by_moments(settling):
    assert settling.measure_of("q") == Measure(16)
    assert settling.measure_of("router") == SQUARES


def test_products_stay_when_inputs_are_divided(settling):
    """Those of what the norm makes, with codes, are closer to the floats' than codes are that were chosen alone."""
    before = {name: settling.weights.read_floats(name) for name in VALUES}
    x = inputs(32)
    sums = {**measured((x * before["norm"]).astype(np.float32), inputs(48)), "up": moments_of(x)}
    assert settling.settle(sums)
    norm = settling.weights.read_floats("norm")
    assert not np.array_equal(norm, before["norm"])
    by = before["norm"] / norm
    feedback = Feedback.of(sums["q"].times(1 / by), 16)
    for name in ("q", "k"):
        codes = feedback.quantize(before[name] * by, SCHEME).codes
        assert np.mean(settling.weights.read(name).codes == codes) > 0.99
        wanted = (x * before["norm"]) @ before[name].T
        found = (x * norm) @ settling.weights.read(name).dequantize().T
        alone = (x * before["norm"]) @ quantize(before[name], SCHEME).dequantize().T
        assert np.sum((found - wanted) ** 2) < 0.5 * np.sum((alone - wanted) ** 2)
    np.testing.assert_array_equal(settling.importance["router"], sums["router"].mean)
    assert settling.importance.keys() == {"router"}


@pytest.mark.parametrize("folds", [[], FOLDS])
def test_scores_stay_when_their_rows_are_rounded_in_turns(settling, folds):
    settling.folds = folds
    before = {name: settling.weights.read_floats(name) for name in VALUES}
    x = inputs(32) * 0.1
    sums = measured((x * before["norm"]).astype(np.float32), inputs(48))

    def off(scores: list[Scores]) -> float:
        settling.scores = scores
        settling.weights.made.clear()
        settling.settle(sums)
        normed = x * settling.weights.read_floats("norm")
        q, k = (normed @ settling.weights.read(name).dequantize().T for name in ("q", "k"))
        wanted_q, wanted_k = ((x * before["norm"]) @ before[name].T for name in ("q", "k"))
        return sum(
            float(np.sum((q[:, a] @ k[:, b].T - wanted_q[:, a] @ wanted_k[:, b].T) ** 2))
            for a, b in ((slice(0, 8), slice(0, 8)), (slice(8, 16), slice(0, 8)), (slice(16, 24), slice(8, 16)))
        )

    assert off([Scores(Side("q"), Side("k"), (2, 1), 8)]) < 0.8 * off([])


def test_factors_stay_away_where_the_other_side_keeps_its_floats(settling):
    settling.schemes = {"q": SCHEME, "down": SCHEME}
    x = inputs(32)
    settling.settle(measured(x, inputs(48)))
    assert settling.weights.made.keys() == {"q", "down"}


def test_a_weight_that_no_code_holds_is_named(settling):
    settling.weights.tensors["q"].values[:] = 1e30
    with pytest.raises(UserError, match="q cannot be quantized: the weight holds"):
        settling.settle({"q": moments_of(inputs(32))})


def test_nothing_changes_where_nothing_becomes_codes(settling):
    assert not settling.settle({"router": Squares(np.ones(32), 1)})
