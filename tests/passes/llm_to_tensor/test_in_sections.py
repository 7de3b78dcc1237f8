"""Runs of tokens that a section is lowered in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.ir.module import Builder
from passes.llm_to_tensor.in_sections import is_in_order, token_runs
from passes.tensor.build import Build
from tests.helpers import TARGET, parse_ir


@pytest.mark.parametrize(
    ("total", "most", "tail", "bounds"),
    [
        (1, 1, 0, [0, 1]),
        (1, 64, 1, [0, 1]),
        (64, 64, 1, [0, 64]),
        (70, 70, 0, [0, 70]),
        (70, 70, 1, [0, 64, 70]),
        (70, 64, 0, [0, 64, 70]),
        (320, 192, 0, [0, 128, 320]),  # even, not 192 and 128
        (320, 192, 1, [0, 128, 256, 320]),
        (512, 512, 1, [0, 448, 512]),
        (512, 512, 2, [0, 384, 512]),
        (512, 256, 1, [0, 192, 448, 512]),
        (500, 128, 1, [0, 64, 192, 320, 448, 500]),
    ],
)
def test_runs_are_even_and_the_tail_is_one_of_its_own(total, most, tail, bounds):
    runs = token_runs(total, most, tail, 64)
    assert [(run.start, run.stop) for run in runs] == list(itertools.pairwise(bounds))


@given(
    total=st.integers(1, 1500),
    rows=st.integers(1, 12),
    tail=st.integers(0, 2),
    lanes=st.sampled_from([8, 32, 64]),
)
def test_runs_cover_all_tokens_once_in_whole_rows_of_lanes(total, rows, tail, lanes):
    runs = token_runs(total, rows * lanes, tail, lanes)
    assert [token for run in runs for token in range(run.start, run.stop)] == list(range(total))
    assert all(run.size > 0 and run.start % lanes == 0 for run in runs)
    last = runs.pop() if tail else None
    assert last is None or -(-last.size // lanes) == min(tail, -(-total // lanes))
    assert all(run.size <= rows * lanes for run in runs)


@pytest.mark.parametrize(
    ("orders", "in_order"),
    [
        ([], False),  # nothing was out of order
        ([(0, 2, 1, 3)], False),
        ([(0, 2, 1, 3), (0, 2, 1, 3)], True),
        ([(0, 2, 1, 3), (2, 0, 1, 3)], True),  # but for where an axis of one item is
        ([(0, 3, 1, 2), (0, 3, 1, 2)], False),
        ([(0, 3, 1, 2), (0, 2, 3, 1)], True),
    ],
)
def test_permutes_may_put_items_back_in_order(orders, in_order):
    module, _ = parse_ir('"func.return"(%x) : (tensor<1x2x3x4xf32>) -> ()')
    (function,) = module.functions()
    build = Build(Builder.before(function.terminator), TARGET)
    (x,) = function.args
    for order in orders:
        x = build.permute(x, order)
    assert is_in_order(x) == in_order
