"""SG and SGL: gathers inside a lane."""


import numpy as np
import pytest

from tests.runtime_sim.machine.instructions.board import (
    RNG,
    Board,
    anything,
    code_of,
    shape_fields,
)


@pytest.mark.parametrize("index", [np.uint8, np.uint16])
def test_gathers_inside_a_lane(index):
    source, where = anything((1, 70, 1, 30)), RNG.integers(0, 30, (2, 70, 1, 9)).astype(index)
    board = Board()
    board.put(source, 0)
    board.put(where, 4096)
    shape = shape_fields((2, 70, 1, 9))
    common = {"res0_prec": 4, "opd0_prec": 4, "opd1_prec": code_of(index), "opd0_w": 30, "res0_addr": 8192}
    board.run("sg", "pe_s_gather_d1coor", opd1_addr=4096, **shape, **common)
    ours = board.take((2, 70, 1, 9), np.uint32, 8192)
    np.testing.assert_array_equal(
        ours, np.take_along_axis(np.tile(source, (2, 1, 1, 1)), where.astype(int), 3)
    )
    shared = RNG.integers(0, 30, (1, 9, 1, 1)).astype(index)
    board.put(shared, 4096, strides=(0, 1, 0, 0))
    board.run("sg", "pl_gather_d1coor", opd1_addr=4096, **shape_fields((1, 70, 1, 9)), **common)
    np.testing.assert_array_equal(board.take((1, 70, 1, 9), np.uint32, 8192), source[..., shared.ravel()])


def test_gathers_of_rows_inside_a_lane():
    source, where = anything((1, 40, 10, 3)), RNG.integers(0, 10, (1, 40, 1, 6)).astype(np.uint16)
    lines = (160, 160, 16, 1)
    board = Board()
    board.put(source, 0, lines)
    board.put(where, 4096)
    board.run(
        "sgl", "pe_s_gather_line", res0_prec=4, opd1_prec=3, opd0_h=10, opd1_addr=4096, res0_addr=8192,
        **shape_fields((1, 40, 6, 3)),
    )  # fmt: skip
    wanted = np.take_along_axis(source, where.transpose(0, 1, 3, 2).astype(int), axis=2)
    np.testing.assert_array_equal(board.take((1, 40, 6, 3), np.uint32, 8192, lines), wanted)
