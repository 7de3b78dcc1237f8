"""MM: f32 products."""

from fractions import Fraction

import numpy as np
import pytest

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import Board, words
from tests.runtime_sim.machine.instructions.scalars import flushed, rounded

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


def test_f32_products_of_mm_use_two_accumulators():
    """K = 7 in blocks of 4 columns: even and odd k add up apart, and the start is with the odd ones."""
    rng = np.random.default_rng(0)
    a, b, start = words(rng, (2, 7), F32, 2), words(rng, (7, 10), F32, 2), words(rng, (2, 10), F32, 2)
    board = Board()
    board.put(np.pad(a, ((0, 0), (0, 1)), constant_values=1e30).reshape(2, 2, 1, 4), 0)
    board.put(np.pad(b, ((0, 0), (0, 2))).reshape(7, 3, 1, 4), 1024)
    board.put(np.pad(start, ((0, 0), (0, 2))).reshape(2, 3, 1, 4), 4096)
    shape = {"opd0_n": 2, "opd0_c": 2, "opd0_w": 4, "opd1_w": 3, "res0_c": 3, "res0_w": 4}
    board.run(
        "mm",
        "normal",
        **shape,
        res0_prec=2,
        opd0_prec=2,
        opd2_const=1,
        res_add=1,
        opd1_addr=1024,
        res0_addr=4096,
    )
    ours = board.take((2, 3, 1, 4), F32, 4096).reshape(2, 12)[:, :10]
    for m in range(2):
        for n in range(10):
            sums = [Fraction(0), Fraction(float(start[m, n]))]
            for k in range(7):
                p = rounded(flushed(float(a[m, k])) * flushed(float(b[k, n])), F32)
                sums[k % 2] = rounded(sums[k % 2] + p, F32)
            assert Fraction(float(ours[m, n])) == rounded(sum(sums), F32)


@pytest.mark.parametrize("field", [{"left_tran": 1}, {"opd0_const": 1}, {"opd2_const": 0}, {"opd2_addr": 4}])
def test_f32_products_that_are_not_modelled(field):
    usual = {"opd0_prec": 2, "res0_prec": 2, "opd2_const": 1}
    with pytest.raises(SimulationError, match="not modelled"):
        Board().run("mm", "normal", **usual | field)
