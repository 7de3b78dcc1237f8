"""Rounding with feedback, beside the plain form of it: one column after the other, with the whole inverse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from compiler.ir.types import BF16, F16
from compiler.weights import feedback
from compiler.weights.feedback import Feedback, Span, larger_first
from compiler.weights.groups import GridSearch, quantize, roots_of
from compiler.weights.moments import Moments
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized

SCHEME = Scheme(4, 16, True, BF16)


def weight_of(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


def moments_of(columns: int, seed: int = 1) -> Moments:
    """Of inputs that depend on each other, and are unlike in size."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(3 * columns, columns)) @ rng.normal(size=(columns, columns)) * rng.uniform(0.1, 3, columns)
    return Moments([(inputs.T @ inputs).astype(np.float32)], len(inputs))


def plain(weight: np.ndarray, scheme: Scheme, square: np.ndarray, rows: int) -> np.ndarray:
    """What codes stand for by Frantar and others 2022, "GPTQ", equations 2 and 3: each error is made up for by all
    later columns, and its column then leaves the inverse.
    """
    squares = np.diagonal(square)
    more = len(square) / rows * np.sqrt(squares.astype(np.float64) * squares.mean(dtype=np.float64))
    inverse = np.linalg.inv(square.astype(np.float64) + np.diag(more))
    left, result = weight.astype(np.float64), np.empty(weight.shape)
    order = larger_first(squares, scheme.group)
    counts = [1 / np.linalg.inv(np.linalg.inv(inverse)[np.ix_(order[i:], order[i:])])[0, 0] for i in range(len(order))]
    for place, column in enumerate(order):
        if place % scheme.group == 0:
            group = order[place : place + scheme.group]
            roots = roots_of(np.float32(counts))[place : place + scheme.group]
            search = GridSearch(scheme, len(weight), np.repeat(roots[:, None], len(weight), 1))
            search.run(left[:, group].astype(np.float32))
        codes = search.nearest(left[:, column].astype(np.float32))
        result[:, column] = (codes - search.zero) * search.scale
        off = (left[:, column] - result[:, column]) / inverse[column, column]
        left[:, order[place:]] -= np.outer(off, inverse[column, order[place:]])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return result


def loss(weight: np.ndarray, found: Quantized, moments: Moments) -> float:
    errors = found.dequantize() - weight
    return sum(
        float(np.vdot(errors[:, span] @ square, errors[:, span])) for span, square in zip(moments.spans, moments.squares, strict=True)
    )


@pytest.mark.parametrize("scheme", [SCHEME, Scheme(4, 16, False, F16), Scheme(8, 32, False, BF16)], ids=str)
def test_codes_are_those_of_the_plain_form(scheme):
    weight, moments = weight_of(24, 64), moments_of(64)
    found = Feedback.of(moments, scheme.group).quantize(weight, scheme).dequantize()
    same = np.isclose(found, plain(weight, scheme, moments.squares[0], moments.rows), atol=1e-6)
    assert same.mean() > 0.98  # a code that rounds the other way changes later ones of its row


def test_errors_of_outputs_are_less_than_without_feedback():
    weight, moments = weight_of(32, 128), replace(moments_of(128), rows=10_000)
    found = loss(weight, Feedback.of(moments, 16).quantize(weight, SCHEME), moments)
    assert found < 0.5 * loss(weight, quantize(weight, SCHEME, moments.mean), moments)


def test_spans_are_rounded_apart():
    weight = weight_of(8, 96)
    one, other = moments_of(32), replace(moments_of(64, 2), rows=96)
    found = Feedback.of(Moments([*one.squares, *other.squares], 96), 16).quantize(weight, SCHEME)
    parts = [Feedback.of(one, 16).quantize(weight[:, :32], SCHEME), Feedback.of(other, 16).quantize(weight[:, 32:], SCHEME)]
    for name in ("codes", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(found, name), np.concatenate([getattr(each, name) for each in parts], 1))


def test_rows_have_nothing_to_do_with_each_other(monkeypatch):
    weight, moments = weight_of(20, 64), moments_of(64)
    whole = Feedback.of(moments, 16).quantize(weight, SCHEME)
    monkeypatch.setattr(feedback, "ROWS", 8)
    with ThreadPoolExecutor(3) as pool:
        some = Feedback.of(moments, 16).quantize(weight, SCHEME, pool.map)
    assert np.mean(whole.codes == some.codes) > 0.98
    np.testing.assert_array_equal(some.codes, Feedback.of(moments, 16).quantize(weight, SCHEME).codes)


def test_inputs_that_are_always_zero_do_no_harm():
    weight, square = weight_of(8, 32), moments_of(32).squares[0].copy()
    for dead in (slice(5, 9), slice(None)):
        square[dead] = square[:, dead] = 0
        found = Feedback.of(Moments([square], 4), 16).quantize(weight, SCHEME).dequantize()
        assert np.abs(found - weight)[:, dead].max() < 0.02


def test_what_no_scheme_holds_is_refused():
    moments = moments_of(32)
    with pytest.raises(ValueError, match="NaN or infinity"):
        Feedback.of(moments, 16).quantize(np.full((2, 32), np.nan, np.float32), SCHEME)
    with pytest.raises(ValueError, match="no whole groups"):
        Feedback.of(moments, 16).quantize(weight_of(2, 33), SCHEME)


def off_elsewhere(rows: int, large: float = 1.0) -> float:
    """What codes for some rows of inputs, of which some are large, do to the outputs of others, over a few weights.

    Rows come in runs of much the same, as in a text.
    """
    found = 0.0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(64, 64)) * np.where(np.arange(64) % 32 == 5, large, 1)
        few, others = (rng.normal(size=(count, 64)) @ mixing for count in (rows // 8, 4096))
        seen = np.repeat(few, 8, axis=0) + 0.5 * rng.normal(size=(8 * len(few), 64)) @ mixing
        weight, moments = weight_of(32, 64, seed), Moments([(seen.T @ seen).astype(np.float32)], len(seen))
        errors = Feedback.of(moments, 16).quantize(weight, SCHEME).dequantize() - weight
        found += float(np.sum((others @ errors.T) ** 2))
    return found


def test_codes_for_few_rows_serve_others(monkeypatch):
    found = off_elsewhere(64)
    monkeypatch.setattr(feedback, "damping", lambda squares, part: np.full(len(squares), 0.01 * squares.mean()))
    assert found < 0.9 * off_elsewhere(64)


def test_large_inputs_leave_small_ones_their_products(monkeypatch):
    found = off_elsewhere(256, large=30.0)
    monkeypatch.setattr(feedback, "damping", lambda squares, part: np.full(len(squares), part * squares.mean()))
    assert found < 0.7 * off_elsewhere(256, large=30.0)


def test_many_rows_are_relied_on_more():
    """As much is added for each input as a row has in all, where inputs are alike."""
    square, order = np.diag(np.full(6, 10.0)), np.arange(6)
    for rows, added in ((3, 20), (6000, 0.01)):
        span = Span.of(0, square, 6, rows)
        np.testing.assert_allclose(span.importance, 10 + added)
        np.testing.assert_allclose(feedback.factor(square, order, 6 / rows) ** 2, np.diag(span.importance))


def test_the_size_of_all_inputs_does_not_matter():
    weight, moments = weight_of(8, 32), moments_of(32)
    codes = Feedback.of(moments, 16).quantize(weight, SCHEME).codes
    larger = replace(moments, squares=[4 * moments.squares[0]])
    np.testing.assert_array_equal(codes, Feedback.of(larger, 16).quantize(weight, SCHEME).codes)


def test_groups_of_larger_inputs_come_first():
    assert larger_first(np.float32([1, 2, 9, 0]), 2).tolist() == [2, 3, 1, 0]
