"""Rows of attention's heads that make up for each other in scores."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights import turns
from compiler.weights.feedback import Feedback
from compiler.weights.moments import Moments
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from compiler.weights.turns import Head, Projected, quantize_in_turns, squares_of_scores

SCHEME = Scheme(4, 16, True, BF16)
SIZE, INPUTS, HEADS = 12, 64, (2, 1)  # of a head of keys: how many of queries
ONES = np.ones((1, SIZE), np.float32)


def inputs_of(rows: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=(rows, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS))).astype(np.float32)


def moments_of(x: np.ndarray, parts: int = 1) -> Moments:
    return Moments([part.T @ part for part in np.split(x, parts, axis=1)], len(x))


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of queries and keys, of which a head's rows are much alike."""
    rng = np.random.default_rng(seed)
    alike = rng.normal(size=(SIZE, SIZE)) + 2
    made = [alike @ rng.normal(size=(heads, SIZE, INPUTS)) for heads in (sum(HEADS), len(HEADS))]
    query, key = (each.reshape(-1, INPUTS).astype(np.float32) for each in made)
    return query, key


def split(rows: np.ndarray) -> np.ndarray:
    """By head, [heads, size, ...]."""
    return rows.reshape(-1, SIZE, *rows.shape[1:])


def off(query: np.ndarray, key: np.ndarray, x: np.ndarray) -> float:
    """The mean square of all scores that a query's weight, or errors of it, make with a key's."""
    keys = np.repeat(split(key @ x.T), HEADS, axis=0)
    return float(np.mean((split(query @ x.T).transpose(0, 2, 1) @ keys) ** 2))


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_nearer_than_by_rows_that_are_rounded_alone(seed):
    query, key = weights(seed)
    x, moments = inputs_of(600), moments_of(inputs_of(600))
    feedback = Feedback.of(moments, 16)
    by_query, by_key = squares_of_scores(Projected(query, None, ONES), Projected(key, None, ONES), moments, HEADS)

    def quantize(rows: np.ndarray) -> Quantized:
        return feedback.quantize(rows, SCHEME)

    def errors(weight: np.ndarray, squares: np.ndarray | None) -> np.ndarray:
        codes = quantize(weight) if squares is None else quantize_in_turns(weight, squares, quantize)
        return codes.dequantize() - weight

    assert off(errors(query, by_query), key, x) < 0.6 * off(errors(query, None), key, x)
    assert off(query, errors(key, by_key), x) < 0.6 * off(query, errors(key, None), x)


@pytest.mark.parametrize("size", [8, 12, 20, 3])
def test_rows_are_put_back_where_they_were(size):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2 * size, 32)).astype(np.float32)
    squares = np.stack([np.diag(rng.uniform(1, 2, size)) for _ in range(2)])
    feedback = Feedback.of(Moments([np.identity(32, np.float32)], 1), 16)
    made = quantize_in_turns(weight, squares, lambda rows: feedback.quantize(rows, SCHEME))
    alone = feedback.quantize(weight, SCHEME)
    np.testing.assert_array_equal(made.codes, alone.codes)
    np.testing.assert_array_equal(made.scales, alone.scales)
    np.testing.assert_array_equal(made.zeros, alone.zeros)


def test_what_later_rows_want_makes_the_square_least(monkeypatch):
    """Given the errors of rows before a turn, and that rows behind it make up for theirs."""
    monkeypatch.setattr(turns, "DAMPING", 0.0)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    head, errors = Head.of(mixing @ mixing.T), rng.normal(size=(6, 1)).astype(np.float32)
    square = (mixing @ mixing.T)[np.ix_(head.order, head.order)]
    best = -np.linalg.solve(square[2:, 2:], square[2:, :2] @ errors[:2])  # of all that follow
    np.testing.assert_allclose(-head.wanted(slice(2, 4), errors), best[:2], rtol=1e-4)


def test_rows_of_large_products_come_first():
    assert Head.of(np.diag([1.0, 3, 2])).order.tolist() == [1, 2, 0]


def test_errors_count_as_they_do_in_scores():
    """With gains of norms, and a bias that the query has; inputs are as often one thing as its opposite."""
    rng, half = np.random.default_rng(2), inputs_of(40)
    x, (query, key) = np.concatenate([half, -half]), weights()
    bias = 100 * rng.normal(size=len(query)).astype(np.float32)
    gains = [rng.uniform(0.5, 2, (heads, SIZE)).astype(np.float32) for heads in (1, len(HEADS))]
    sides = Projected(query, bias, gains[0]), Projected(key, None, gains[1])
    by_query, by_key = squares_of_scores(*sides, moments_of(x), HEADS)
    q = split(query @ x.T + bias[:, None]) * gains[0][:, :, None]
    k = split(key @ x.T) * gains[1][:, :, None]
    first = np.cumsum((0, *HEADS[:-1]))
    for squares, gain, others in ((by_query, gains[0], np.repeat(k, HEADS, axis=0)), (by_key, gains[1], q)):
        errors = rng.normal(size=(len(squares), SIZE)).astype(np.float32)
        each = errors * gain if others is not q else np.repeat(errors * gain, HEADS, axis=0)
        wanted = np.sum(np.einsum("hr,hrt->ht", each, others) ** 2, axis=1)
        wanted = wanted if others is not q else np.add.reduceat(wanted, first)
        np.testing.assert_allclose(np.einsum("hr,hrs,hs->h", errors, squares, errors), wanted, rtol=1e-3)


def test_products_of_inputs_in_two_parts_vanish():
    query, key = weights()
    sides = Projected(query, None, ONES), Projected(key, None, ONES)
    whole = moments_of(inputs_of(40)).squares[0].copy()
    whole[: INPUTS // 2, INPUTS // 2 :] = whole[INPUTS // 2 :, : INPUTS // 2] = 0
    found = squares_of_scores(*sides, moments_of(inputs_of(40), 2), HEADS)
    for part, wanted in zip(found, squares_of_scores(*sides, Moments([whole], 40), HEADS), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-4, atol=1e-2 * np.abs(wanted).max())
