"""Fused per-channel operations."""


import numpy as np
import pytest

from tests.runtime_sim.machine.instructions.board import Board, shape_fields

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.mark.parametrize("kind", ["mac", "square_sum", "square_diff"])
def test_fused_operations_round_twice(kind):
    rng = np.random.default_rng(0)
    x, b, c = (rng.standard_normal((1, 70, 1, w)).astype(F32) for w in (5, 1, 1))
    board = Board()
    board.put(x, 0)
    board.put(b, 4096, strides=(0, 1, 0, 0))
    board.put(c, 6144, strides=(0, 1, 0, 0))
    board.run(
        "lin", kind, res0_prec=2, opd1_addr=4096, opd2_addr=6144, res0_addr=8192, **shape_fields(x.shape)
    )
    wanted = {"mac": x * b + c, "square_sum": (x + b) * (x + b), "square_diff": (x - b) * (x - b)}
    np.testing.assert_array_equal(board.take(x.shape, F32, 8192), wanted[kind])
