"""TSBC: transposes, copies between lanes, and rows of static memory."""


import numpy as np
import pytest

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    B8,
    LANE,
    WIDTHS,
    Board,
    X,
    anything,
    code_of,
    shape_fields,
)

F32 = np.dtype(np.float32)


@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["cw_ts", "wc_ts"])
@pytest.mark.parametrize(
    ("shape", "lane", "to"), [((1, 70, 1, 9), 0, 5), ((2, 9, 1, 70), 3, 30), ((2, 35, 3, 4), 0, 0)]
)
def test_transposes_exchange_lanes_and_columns(kind, spec, dtype, shape, lane, to):
    n, c, h, w = shape
    board, x = Board(spec), anything((n, w, h, c), dtype)
    source, target = lane * LANE, to * LANE + 8192
    board.put(x, source)
    fields = {"res0_prec": code_of(dtype), "opd0_addr": source, "res0_addr": target}
    board.run("tsbc", kind, opd0_c=w, opd0_w=c, **fields, **shape_fields(shape))
    unit = spec.eu_bytes // dtype.itemsize
    row = -(-w // unit) * unit
    lines = (-(-(to + c) // spec.lanes) * h * row, h * row, row, 1) if kind == "cw_ts" else None
    np.testing.assert_array_equal(board.take(shape, dtype, target, lines), x.transpose(0, 3, 2, 1))


def test_a_transpose_names_shapes_that_do_not_match():
    with pytest.raises(SimulationError, match="not the transpose"):
        Board().run("tsbc", "cw_ts", opd0_c=3, opd0_w=5, **shape_fields((1, 4, 1, 3)))


def test_copies_between_lanes_and_broadcasts():
    board, x = Board(), anything((2, 20, 2, 9))
    board.put(x, 3 * LANE)
    board.run(
        "tsbc", "l_copy", res0_prec=4, opd0_addr=3 * LANE, res0_addr=60 * LANE + 8192, **shape_fields(x.shape)
    )
    np.testing.assert_array_equal(board.take(x.shape, np.uint32, 60 * LANE + 8192), x)
    wide = (2, 70, 2, 9)
    board.run("tsbc", "l_bc", res0_prec=4, opd0_addr=3 * LANE, res0_addr=8192, **shape_fields(wide))
    np.testing.assert_array_equal(board.take(wide, np.uint32, 8192), np.broadcast_to(x[:, :1], wide))


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
def test_rows_of_static_memory(spec):
    """The series of exp and log, and the numbers, lie where programs look for them."""
    exp, log, numbers = (1024, 1152, 1472) if spec is X else (0, 128, 448)
    wanted = {exp: [1, 1, 1 / 2, 1 / 6, 1 / 24], log: [0, 1, -1 / 2, 1 / 3, -1 / 4], numbers: range(5)}
    for offset, row in wanted.items():
        board, source = Board(spec), spec.tiu_static_base + offset
        board.run("tsbc", "s_bc", res0_prec=2, opd0_addr=source, **shape_fields((1, 40, 1, 5)))
        np.testing.assert_array_equal(
            board.take((1, 40, 1, 5), F32, 0), np.tile(np.array(row, F32), (1, 40, 1, 1))
        )
        board.run("tsbc", "s_distribute", res0_prec=2, opd0_addr=source, **shape_fields((1, 5, 1, 1)))
        np.testing.assert_array_equal(
            board.take((1, 5, 1, 1), F32, 0, (0, 1, 0, 0)).ravel(), np.array(row, F32)
        )


@pytest.mark.parametrize("offset", [-4, X.static_bytes - 16])
def test_rows_beyond_static_memory_are_refused(offset):
    with pytest.raises(SimulationError, match="not all in static memory"):
        Board().run(
            "tsbc", "s_bc", res0_prec=2, opd0_addr=X.tiu_static_base + offset, **shape_fields((1, 4, 1, 5))
        )
