"""Tokens that a model goes on with, beside those of the Hugging Face model."""

from __future__ import annotations

import numpy as np
import torch

from frontend import writing
from frontend.writing import written
from tests.frontend.test_calibration import opened, saved

FIRST = np.array([3, 99, 200, 7, 41])


class Certain:
    """Draws that leave the largest logit the largest."""

    def standard_exponential(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.ones(shape, dtype)


def test_the_likeliest_tokens_are_those_of_the_model(tmp_path, monkeypatch):
    model = saved(tmp_path, "gemma2")
    monkeypatch.setattr(writing, "HEAD_ROWS", 100)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Certain())
    found = written(*opened(tmp_path), FIRST, 6, 2)
    assert found.shape == (5, 6)
    with torch.no_grad():
        logits = model(torch.from_numpy(found)).logits[:, :-1].numpy()
    chosen = np.take_along_axis(logits, found[:, 1:, None], 2)[..., 0]
    assert (logits.max(-1) - chosen < 0.05 * logits.std()).all()


def test_tokens_are_drawn_alike_whatever_the_jobs(tmp_path):
    saved(tmp_path, "llama")
    one, three = (written(*opened(tmp_path), FIRST, 5, jobs) for jobs in (1, 3))
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(one[:, 0], FIRST)
    assert len({*one[:, 1:].ravel()}) > 10
