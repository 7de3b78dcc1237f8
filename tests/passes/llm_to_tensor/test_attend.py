"""Scores, masks and the softmax, in numbers, down to the chip."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.attending import MASKED, Attention, causal, hidden_unless


def test_keys_are_hidden_where_a_mask_has_holes():
    mask = np.minimum(causal(150), hidden_unless(random_tensor(150, 150, seed=5) > 0))
    np.fill_diagonal(mask, 0)
    Attention(150).check(mask, "{tokens=64}")
    Attention(1, history=150).check(hidden_unless(random_tensor(151, seed=6) > 0))


@pytest.mark.parametrize("mask", ["bf16", "f32"])
def test_a_mask_of_moderate_numbers_adds_to_the_scores(mask):
    """As a bias by distance would: what is wrong by a factor shows."""
    slopes = -0.05 * np.arange(100)[::-1]
    Attention(1, history=99, mask=mask).check(slopes)
    distance = np.arange(100)[:, None] - np.arange(100)
    Attention(100, mask=mask).check(np.where(distance >= 0, -0.05 * distance, MASKED), "{tokens=64}")


@pytest.mark.parametrize("lowest", [np.finfo(np.float32).min, -np.inf, -3.0e38, -1.0e30])
def test_an_f32_mask_may_hide_by_the_lowest_numbers_there_are(lowest):
    Attention(1, history=99, mask="f32").check(np.where(np.arange(100) % 3, lowest, 0))
    Attention(100, mask="f32").check(np.where(np.tril(np.ones((100, 100), bool)), 0, lowest), "{tokens=64}")


@pytest.mark.parametrize("lowest", [MASKED, np.finfo(np.float32).min])
def test_a_query_that_sees_nothing_takes_the_mean(lowest):
    Attention(1, history=99, mask="f32").check(np.full(100, lowest))
