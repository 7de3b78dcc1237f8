"""What is kept beside dumps of how codes were chosen."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import UserError
from driver.calibration.chosen import NAME, keep, kept
from driver.calibration.kept import Scaled, Vector
from frontend.binding import Weights
from tests.driver.calibration.given import Given


def test_importance_is_kept_by_parameter(tmp_path):
    weight = np.array([1.0, 0.25], np.float32)
    keep(tmp_path, "search", {"model.layers.0.mlp.up_proj.weight": weight}, Weights({}))
    (name,), (found,) = zip(*kept(tmp_path, Weights({})).items(), strict=True)
    assert name == "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(found, weight)


def test_what_was_put_in_the_place_of_parameters_is_again(tmp_path):
    before = {"a.norm": Given(np.ones(2)), "a.weight": Given(np.ones((3, 2)))}
    vector = np.array([0.5, 4], np.float32)
    scaled = Scaled(before["a.weight"], 1 / vector, np.float32([[1], [2], [4]]))
    made = {"a.norm": Vector(before["a.norm"], vector), "a.weight": scaled}
    keep(tmp_path, "search", {}, Weights(before, made=made))
    again = Weights(before)
    assert kept(tmp_path, again) == {}
    np.testing.assert_array_equal(again.read("a.norm"), vector)
    np.testing.assert_array_equal(again.read("a.weight"), [[2, 0.25], [4, 0.5], [8, 1]])


def test_what_was_kept_before_is_replaced(tmp_path):
    keep(tmp_path, "search", {"a.weight": np.ones(2, np.float32)}, Weights({}))
    keep(tmp_path, "none", {}, Weights({}))
    assert kept(tmp_path, Weights({})) == {}


def test_codes_that_depend_on_others_are_refused(tmp_path):
    keep(tmp_path, "gptq", {}, Weights({}))
    with pytest.raises(UserError, match="--calibrate search"):
        kept(tmp_path, Weights({}))


@pytest.mark.parametrize("text", [None, "no archive"])
def test_dumps_without_it_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match="compile again with --dump-ir"):
        kept(tmp_path, Weights({}))
