"""Probabilities of candidates: the instructions compute what the formula says, at its edges too."""

from __future__ import annotations

import numpy as np
import pytest

from dialects import tensor
from tests.passes.programs import EVERYWHERE, Program
from tests.passes.tensor_to_chip.lowered import check, normal


def nucleus(values: np.ndarray, *numbers: float, least: int = 5) -> Program:
    program = Program([values, *(np.array([[number]], np.float32) for number in numbers)])
    operands = [program.load(EVERYWHERE) for _ in range(4)]
    return program.finish(program.add(tensor.NucleusOp(*operands, least=least)))


@pytest.mark.parametrize("count", [7, 16, 50])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 50, 1.0), (0.7, 20, 0.8), (2.5, 6, 0.3), (1.0, 1, 0.9), (0.0, 50, 0.9), (1.0, 50, 0.0)],
)
def test_probabilities(count, temperature, top_k, top_p):
    values = -np.sort(-4 * normal(1, count), axis=1)
    program = nucleus(values, temperature, top_k, top_p)
    (found,) = program.interpreted()
    assert found.sum() == pytest.approx(1)
    assert (found > 0).sum() <= max(min(top_k, count), 1)
    check(program, 3e-6)


def test_candidates_that_are_far_or_alike():
    values = np.array([[3e4, 3e4, 3e4, 1.0, -3e4, -3e4, -3e4, -3e4]], np.float32)
    program = nucleus(values, 1.0, 8, 1.0)
    np.testing.assert_allclose(program.interpreted()[0][0, :4], [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    check(program, 3e-6)
