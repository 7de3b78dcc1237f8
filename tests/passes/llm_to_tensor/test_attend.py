"""Scores, masks and the softmax, in numbers, down to the chip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.compare import compare
from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.attending import MASKED, Attention, causal, hidden_unless, padded


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


CALLS = {"a prompt": (Attention(150), causal(150)), "a step": (Attention(1, 6, 2, history=100), padded(100, 80))}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cap", [0.5, 3.0, 50.0])
def test_scores_are_bent_to_a_cap(call, cap):
    attention, mask = CALLS[call]
    attention = replace(attention, softcap=cap)
    attention.check(mask, "{tokens=64}")
    if cap < 50:
        assert compare(attention.llm_result(mask), CALLS[call][0].llm_result(mask)).cosine < 0.9999


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_a_sink_takes_its_part_of_the_sum_and_gives_nothing(call, cap):
    attention, mask = CALLS[call]
    attention = replace(attention, sinks=True, softcap=cap)
    attention.check(mask, "{tokens=64}")
    lengths = [np.linalg.norm(one.llm_result(mask).astype(np.float32)) for one in (attention, replace(attention, sinks=False))]
    assert lengths[0] < 0.98 * lengths[1]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("width", [32, 128])
def test_values_have_a_width_of_their_own(call, width):
    attention, mask = CALLS[call]
    replace(attention, value_width=width).check(mask, "{tokens=64}")
