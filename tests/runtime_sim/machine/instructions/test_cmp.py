"""CMP: selections."""


import numpy as np
import pytest

from compiler.target.isa import STRIDED
from tests.runtime_sim.machine.instructions.board import (
    BF16,
    RNG,
    Board,
    anything,
    code_of,
    shape_fields,
)

F32 = np.dtype(np.float32)


@pytest.mark.parametrize("kind", ["sel_gt", "sel_eq", "sel_lt", "gt_and_sel", "lt_and_sel"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, BF16], ids=str)
def test_selections(kind, dtype):
    shape = (1, 70, 2, 9)
    a, b = (RNG.integers(0, 3, shape).astype(dtype) for _ in range(2))
    yes, no = anything(shape), anything(shape)
    board = Board()
    for values, address in ((a, 0), (b, 2048), (yes, 4096), (no, 6144)):
        board.put(values, address)
    board.run(
        "cmp", kind, opd0_prec=code_of(dtype), opd0_sign=int(np.dtype(dtype).kind != "u"), opd2_prec=4,
        opd1_addr=2048, opd2_addr=4096, opd3_addr=6144, res0_addr=8192, res1_addr=10240, **shape_fields(shape),
    )  # fmt: skip
    chosen = {"gt": a > b, "eq": a == b, "lt": a < b}[kind.replace("sel", "").replace("_and_", "").strip("_")]
    selected = np.where(chosen, yes, no)
    if kind.endswith("and_sel"):
        extreme = np.where(a > b, a, b) if kind.startswith("gt") else np.where(a < b, a, b)
        np.testing.assert_array_equal(board.take(shape, dtype, 8192), extreme)
    np.testing.assert_array_equal(board.take(shape, np.uint32, 10240 if "and" in kind else 8192), selected)


def test_a_selection_compares_with_one_value_per_lane_or_constants():
    shape = (2, 70, 3, 4)
    x, limits = RNG.standard_normal(shape).astype(F32), RNG.standard_normal((1, 64, 1, 1)).astype(F32)
    board = Board()
    board.put(x, 0)
    board.put(limits, 2048)
    board.run(
        "cmp", "sel_gt", opd0_prec=2, opd2_prec=4, opd1_str=STRIDED, opd1_addr=2048, opd2_const=1, opd2_addr=7,
        opd3_const=1, opd3_addr=9, res0_addr=8192, **shape_fields(shape),
    )  # fmt: skip
    limit = limits[0, np.arange(70) % 64, 0, 0][:, None, None]
    np.testing.assert_array_equal(board.take(shape, np.int32, 8192), np.where(x > limit, 7, 9))
