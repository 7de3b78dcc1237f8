"""Polynomials."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime_sim.machine.instructions.board import BF16, Board, code_of, shape_fields
from tests.runtime_sim.machine.instructions.scalars import rounded

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("kind", ["taylor", "taylor_4x"])
@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 30), count=st.integers(2, 12))
def test_polynomials_round_every_product_and_sum(kind, dtype, seed, count):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (1, 70, 1, 3)).astype(dtype)
    rows = rng.uniform(-2, 2, (1, 64, 1, count)).astype(dtype)
    board = Board()
    board.put(x, 0)
    board.put(rows, 4096)
    code = code_of(dtype)
    board.run(
        "sfu", kind, res0_prec=code, opd0_prec=code, opd1_n=count, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    ours = board.take(x.shape, dtype, 8192)
    flushes = dtype != F16
    for c in (0, 5, 63, 64, 69):
        coefficients = [Fraction(float(v)) for v in rows[0, c % 64, 0]]
        total = coefficients[-1]
        for coefficient in reversed(coefficients[:-1]):
            value = rounded(total * Fraction(float(x[0, c, 0, 1])), dtype, flushes=flushes)
            total = rounded(rounded(value + coefficient, F32), dtype, flushes=flushes)
        assert Fraction(float(ours[0, c, 0, 1])) == total
