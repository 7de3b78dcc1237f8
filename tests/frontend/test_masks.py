"""Kinds of masks by name: what they show, and the first key of each position."""

from __future__ import annotations

import numpy as np
import pytest

from dialects.llm import Visible
from frontend.masks import first_keys, visible


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("causal", Visible("causal")),
        ("full", Visible("all")),
        ("sliding window of 5", Visible("window", 5)),
        ("chunks of 8", Visible("chunk", 8)),
        ("custom", Visible("masked")),
        ("decode", Visible("masked")),
    ],
)
def test_what_a_kind_shows(kind, shown):
    assert visible(kind) == shown


def test_first_keys():
    assert first_keys("sliding window of 3", 6)[:, 0].tolist() == [0, 0, 0, 1, 2, 3]
    assert first_keys("chunks of 3", 7)[:, 0].tolist() == [0, 0, 0, 3, 3, 3, 6]
    assert first_keys("causal", 6) is None
    assert first_keys("custom", 6) is None


@pytest.mark.parametrize("kind", ["sliding window of 5", "chunks of 7", "sliding window of 1"])
def test_a_table_agrees_with_what_is_visible(kind):
    positions = np.arange(40)
    assert first_keys(kind, 40)[:, 0].tolist() == [visible(kind).first_key(int(p)) for p in positions]
