"""Dequantization and requantization by channel."""


import numpy as np
import pytest

from tests.runtime_sim.machine.instructions.board import B8, Board, X, shape_fields

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
def test_dequantization_by_channel(spec):
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 66, 2, 3)).astype(np.int8)
    zero_points = rng.integers(-20, 20, 66).astype(np.int32)
    scales = rng.standard_normal(66).astype(F32)
    board = Board(spec)
    board.put(x, 0)
    pairs = np.stack([zero_points.view(np.uint32), scales.view(np.uint32)], axis=1)
    board.put(pairs.reshape(1, 66, 1, 2), 4096)
    board.run(
        "rqdq", "dq0", res0_prec=2, opd0_sign=1, opd2_sign=1, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    wanted = (x - zero_points[:, None, None]).astype(F32) * scales[:, None, None]
    np.testing.assert_array_equal(board.take(x.shape, F32, 8192), wanted)
    totals = rng.integers(-9999, 9999, x.shape).astype(np.int32)
    board.put(totals, 0)
    small = np.stack([scales * np.float32(0.01), scales], axis=1).view(np.uint32)
    board.put(small.reshape(1, 66, 1, 2), 4096)
    board.run(
        "rqdq", "rq0", opd0_prec=4, opd0_sign=1, opd2_sign=1, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    real = totals.astype(F32) * (scales * np.float32(0.01))[:, None, None] + scales[:, None, None]
    np.testing.assert_array_equal(board.take(x.shape, np.int8, 8192), np.clip(np.rint(real), -128, 127))
