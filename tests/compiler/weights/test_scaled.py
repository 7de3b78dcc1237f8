"""Names of weights by factors, and their values."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.weights.scaled import rows_scaled, scaled, weight_and_scale
from frontend.imported import Instance


def test_a_name_says_the_weight_and_the_factors():
    assert weight_and_scale(scaled("/a.weight", "/b")) == ("/a.weight", "/b")
    assert weight_and_scale("a.weight") == ("a.weight", None)


def test_both_are_named_in_full_by_what_they_are_bound_to():
    layer = Instance(3, "model.layers.3.")
    assert layer.parameter_name("proj.weight^*/norm") == "model.layers.3.proj.weight^*norm"


@pytest.mark.parametrize("shape", [(3, 4), (3,)])
def test_each_row_has_its_factor(shape):
    values = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    found = rows_scaled(values, np.array([1, -2, 0.5], np.float16))
    assert found.dtype == np.float32
    for row, factor in enumerate((1, -2, 0.5)):
        np.testing.assert_array_equal(found[row], values[row].astype(np.float32) * factor)
