"""Runs of a model with its layers cut out."""

from __future__ import annotations

import pytest

from tests.frontend.models import check_refused, config

REFUSED = {
    "state space": (config("mamba"), r"cannot trace the model: .* in backbone\.layers\.0"),
    "two streams": (config("gemma4_text"), r"model\.layers\.0 takes 2 computed values, expected one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])
