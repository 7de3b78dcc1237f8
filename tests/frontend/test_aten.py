"""What recorded functions are in the llm dialect."""

from __future__ import annotations

import pytest

from dialects import llm
from frontend.aten import visible


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        ("causal", llm.Visible("causal")),
        ("full", llm.Visible("all")),
        ("sliding window of 7", llm.Visible("window", 7)),
        ("custom", llm.Visible("masked")),
        ("decode", llm.Visible("masked")),
    ],
)
def test_each_kind_of_mask_says_what_is_visible(mask, shown):
    assert visible(mask) == shown
