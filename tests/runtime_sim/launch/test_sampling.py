"""How tokens are drawn: what a model's settings say, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import UserError
from runtime_sim.launch.sampling import Sampling, candidates


def test_settings_are_those_of_generation_config():
    settings = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05, "eos_token_id": 2}
    assert Sampling.from_settings(settings, "g") == Sampling(1.05, 0.6, 20, 0.95)
    assert Sampling.from_settings({}, "g") == Sampling(1.0, 1.0, 0, 1.0)
    assert Sampling.from_settings({"temperature": None, "top_k": 0}, "g") == Sampling()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": "hot"}, "g: temperature is hot, expected 0 to 1000"),
        ({"temperature": -1}, "g: temperature is -1"),
        ({"top_p": 1.5}, "g: top_p is 1.5, expected 0 to 1"),
        ({"top_k": True}, "g: top_k is True"),
        ({"repetition_penalty": 0}, "g: repetition_penalty is 0, expected 0.01 to 100"),
        ({"top_p": float("nan")}, "g: top_p is nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Sampling.from_settings(settings, "g")


LOGITS = np.log(np.array([0.05, 0.5, 0.25, 0.12, 0.08]))


def chosen(sampling: Sampling, least: int, seen: tuple[int, ...] = ()) -> dict[int, float]:
    probabilities, tokens = candidates(LOGITS, np.array(seen, int), sampling, 5, least)
    return {int(t): round(float(p), 6) for p, t in zip(probabilities, tokens, strict=True) if p}


def test_the_candidate_that_reaches_top_p_is_left_out_but_the_first_ones_stay():
    assert chosen(Sampling(), 1) == {1: 0.5, 2: 0.25, 3: 0.12, 4: 0.08, 0: 0.05}
    assert chosen(Sampling(top_p=0.8), 1) == {1: round(2 / 3, 6), 2: round(1 / 3, 6)}
    assert chosen(Sampling(top_p=0.2), 1) == {1: 1.0}
    assert chosen(Sampling(top_p=0.2), 2) == {1: round(2 / 3, 6), 2: round(1 / 3, 6)}
    assert chosen(Sampling(top_k=2), 5) == {1: round(2 / 3, 6), 2: round(1 / 3, 6)}


def test_a_token_counts_once_and_token_0_never():
    once, twice = (chosen(Sampling(penalty=3.0), 5, seen) for seen in ((1, 0), (1, 1, 0, 99)))
    assert once == twice
    assert next(iter(once)) == 2  # the logits are below 0, so the penalty multiplies
