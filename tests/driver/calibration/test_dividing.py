"""Inputs divided in a norm, for weights that are stored as codes by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from driver.calibration.dividing import multiply_readers
from driver.calibration.folds import Fold
from driver.calibration.kept import Scaled
from frontend.binding import Weights
from tests.driver.calibration.given import Given

SCHEME = Scheme(4, 16, True, BF16)
RNG = np.random.default_rng(0)
NORM, Q, K, UP = RNG.uniform(0.5, 2, 32), RNG.normal(size=(24, 32)), RNG.normal(size=(16, 32)), np.ones((8, 32))
INPUTS = RNG.normal(size=(200, 32)) * RNG.uniform(0.05, 4, 32)
FOLDS = [Fold(("q", "k"), ("norm",))]


@pytest.fixture
def weights() -> Weights:
    return Weights({"norm": Given(NORM), "q": Given(Q), "k": Given(K), "up": Given(UP)})


def counted(inputs: np.ndarray) -> dict[str, np.ndarray]:
    mean = np.mean(inputs**2, axis=0).astype(np.float32)
    return dict.fromkeys(("q", "k", "up"), mean)


def test_products_stay_and_codes_of_them_are_closer(weights):
    norm, q, k = (weights.read_floats(name) for name in ("norm", "q", "k"))
    before = counted(INPUTS * norm)
    found = multiply_readers(weights, FOLDS, dict.fromkeys(("q", "k", "up"), SCHEME), before, jobs=2)
    by = norm / weights.read_floats("norm")
    assert by.max() > 1.5 * by.min()
    assert weights.made.keys() == {"norm", "q", "k"}
    np.testing.assert_array_equal(found["up"], before["up"])
    for name, weight in (("q", q), ("k", k)):
        np.testing.assert_allclose(weights.read_floats(name), weight * by, rtol=1e-6)
        np.testing.assert_allclose(found[name], before[name] / by**2, rtol=1e-6)
        codes = quantize(weights.read_floats(name), SCHEME, found[name]).dequantize()
        error = (INPUTS * weights.read_floats("norm")) @ codes.T - (INPUTS * norm) @ weight.T
        alone = (INPUTS * norm) @ (quantize(weight, SCHEME, before[name]).dequantize() - weight).T
        assert np.sum(error**2) < 0.8 * np.sum(alone**2)


@pytest.mark.parametrize("missing", ["scheme", "importance"])
def test_what_one_of_the_readers_is_not_known_for_is_left_alone(weights, missing):
    schemes, importance = dict.fromkeys(("q", "k"), SCHEME), counted(INPUTS)
    del (schemes if missing == "scheme" else importance)["k"]
    assert multiply_readers(weights, FOLDS, schemes, importance, jobs=1) == importance
    assert not weights.made


def test_rows_that_make_the_inputs_are_divided():
    """A matrix may be a reader of one fold, and make the inputs of another."""
    weights = Weights({"norm": Given(NORM), "up": Given(RNG.normal(size=(32, 32))), "down": Given(K)})
    up, down = weights.read_floats("up"), weights.read_floats("down")
    folds = [Fold(("up",), ("norm",)), Fold(("down",), (), rows=("up",))]
    before = dict.fromkeys(("up", "down"), counted(INPUTS)["up"])
    assert multiply_readers(weights, folds, {"down": SCHEME}, before, jobs=1) == before
    found = multiply_readers(weights, folds, dict.fromkeys(("up", "down"), SCHEME), before, jobs=1)
    by = (weights.read_floats("down") / down)[0]
    assert by.max() > 1.5 * by.min()
    np.testing.assert_allclose(found["down"], before["down"] / by**2, rtol=1e-5)
    columns = NORM.astype(BF16.numpy).astype(np.float32) / weights.read_floats("norm")
    np.testing.assert_allclose(weights.read_floats("up"), up * columns / by[:, None], rtol=1e-5)


def test_some_rows_of_a_product_are_those_of_all():
    columns, rows = (RNG.uniform(0.5, 2, size).astype(np.float32) for size in (32, (600, 1)))
    scaled = Scaled(Given(RNG.normal(size=(600, 32))), columns, rows)
    whole = scaled.read()
    np.testing.assert_array_equal(whole, scaled.before.read() * columns * rows)
    np.testing.assert_array_equal(scaled.read(slice(250, 560)), whole[250:560])
