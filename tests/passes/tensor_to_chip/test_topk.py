"""The k largest: in every form, with ties, signs and numbers of items, the instructions find what numpy does."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import F32
from dialects import tensor
from tests.passes.programs import Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import check, kinds, normal


def topk(program: Program, x: object, k: int) -> Program:
    op = tensor.TopkOp(x, k=k)
    program.add(op)
    return program.finish(*op.results)


def with_ties(*shape: int) -> np.ndarray:
    """Few different numbers, so that many are equal, both zeros among them."""
    return (np.round(2 * normal(*shape)) / 2).astype(np.float32)


@pytest.mark.parametrize("layout", [packed, slots])
@pytest.mark.parametrize(("count", "k"), [(8, 2), (64, 64), (65, 3), (128, 8), (1000, 5), (4096, 50)])
@pytest.mark.parametrize("values", [normal, with_ties])
def test_of_one_row_over_the_lanes(count, k, values, layout):
    program = Program([np.pad(values(1, count), [(0, 0), (0, -count % 64)], constant_values=1e9)])
    x = program.load(layout(1))
    x = program.add(tensor.SliceOp(x, starts=(0, 0), sizes=(1, count)))
    check(topk(program, x, k))


@pytest.mark.parametrize(("tokens", "count", "k"), [(1, 40, 40), (7, 8, 2), (64, 60, 6), (150, 256, 8)])
@pytest.mark.parametrize("values", [normal, with_ties])
def test_of_many_rows(tokens, count, k, values):
    program = Program([values(tokens, count)])
    check(topk(program, program.load(slots(0)), k))


def test_with_axes_of_one_in_front():
    program = Program([normal(1, 70, 20)])
    check(topk(program, program.load(slots(1)), 4))
    program = Program([normal(1, 1, 192)])
    check(topk(program, program.load(packed(2)), 4))


def test_the_largest_may_be_next_to_the_lowest_numbers():
    x = np.full((1, 128), -3.3e38, np.float32)
    x[0, [3, 77]] = [-1e30, 0.0]
    program = Program([x])
    check(topk(program, program.load(packed(1)), 5))


def test_results_can_be_computed_with():
    """Weights of experts: the values over their sum, on every lane."""
    program = Program([np.abs(normal(1, 64))])
    op = tensor.TopkOp(program.load(packed(1)), k=4)
    program.add(op)
    total = program.add(tensor.ReduceOp(op.values, kind="sum", axis=1))
    weights = program.add(tensor.MulOp(op.values, program.add(tensor.ReciprocalOp(total))))
    column = program.make(tensor.CastOp, weights, type_=array((1, 4), F32, weights.type.layout))
    check(program.finish(column, op.indices), 1e-6)


def test_each_round_reads_the_row_four_times():
    program = Program([normal(1, 4096)])
    topk(program, program.load(packed(1)), 3)
    program.lower("tensor-to-chip")
    found = kinds(program)
    assert found.count("select.sel_eq") == 3 * 2 + 2  # where it is in the lane and among lanes; and to drop it
    assert found.count("pool.maxpooling") == 3 * 8
