"""What is kept beside dumps of how codes were chosen."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import UserError
from driver.calibration.chosen import NAME, keep, kept


def test_importance_is_kept_by_parameter(tmp_path):
    weight = np.array([1.0, 0.25], np.float32)
    keep(tmp_path, "search", {"model.layers.0.mlp.up_proj.weight": weight})
    (name,), (found,) = zip(*kept(tmp_path).items(), strict=True)
    assert name == "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(found, weight)


def test_what_was_kept_before_is_replaced(tmp_path):
    keep(tmp_path, "search", {"a.weight": np.ones(2, np.float32)})
    keep(tmp_path, "none", {})
    assert kept(tmp_path) == {}


def test_codes_that_depend_on_others_are_refused(tmp_path):
    keep(tmp_path, "gptq", {})
    with pytest.raises(UserError, match="--calibrate search"):
        kept(tmp_path)


@pytest.mark.parametrize("text", [None, "no archive"])
def test_dumps_without_it_are_refused(tmp_path, text):
    if text is not None:
        (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match="compile again with --dump-ir"):
        kept(tmp_path)
