"""Both ends of a DMA command: shapes and strides given or left out, lanes, and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    B8,
    DDR,
    LANE,
    Board,
    Ddr,
    X,
    anything,
    at,
    code_of,
    local,
    sizes,
)
from tests.runtime_sim.machine.instructions.transfers import row_major, shapes, transfer, widths


@settings(max_examples=30)
@given(shape=shapes, lane=st.integers(0, 63), dtype=widths, spec=st.sampled_from([X, B8]))
def test_copies_into_lanes_and_back(shape, lane, dtype, spec):
    board, x = Board(spec), anything(shape, dtype)
    lane %= spec.lanes
    here = Ddr(board, dtype, row_major(shape, gap=3))
    here.fill(x)
    strides = board.aligned(shape, dtype, lane)
    inside = (local(board, lane), shape, strides)
    transfer(board, "copy", (here.address, shape, here.strides), inside, dtype, nchw_copy=1)
    np.testing.assert_array_equal(board.take(shape, dtype, lane * LANE), x)
    there = Ddr(board, dtype, row_major(shape), offset=1 << 15)
    transfer(board, "copy", inside, (there.address, shape, there.strides), dtype, nchw_copy=1)
    np.testing.assert_array_equal(there.read(shape), x)


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
@pytest.mark.parametrize("lane", [0, 3])
def test_both_ends_may_have_gaps_everywhere(spec, lane):
    shape, flat, inside = (2, 37, 3, 4), (5000, 120, 37, 2), (600, 90, 25, 3)
    board, x = Board(spec), anything(shape, np.uint16)
    here = Ddr(board, np.uint16, flat)
    here.fill(x)
    there = (local(board, lane), shape, inside)
    transfer(board, "copy", (here.address, shape, flat), there, np.uint16, nchw_copy=1)
    np.testing.assert_array_equal(board.take(shape, np.uint16, lane * LANE, inside), x)
    board.ddr[:] = 0
    transfer(board, "copy", there, (here.address, shape, flat), np.uint16, nchw_copy=1)
    np.testing.assert_array_equal(here.read(shape), x)
    assert np.count_nonzero(board.ddr.view(np.uint16)) == np.count_nonzero(x)


@settings(max_examples=15)
@given(shape=shapes, dtype=widths)
def test_strides_left_out_mean_row_major_and_aligned(shape, dtype):
    board, x = Board(), anything(shape, dtype)
    here = Ddr(board, dtype, row_major(shape))
    here.fill(x)
    fields = at("src", DDR) | at("dst", local(board, 5)) | sizes("src", shape)
    board.run("dma_tensor", "copy", nchw_copy=1, src_data_format=code_of(dtype), **fields)
    np.testing.assert_array_equal(board.take(shape, dtype, 5 * LANE), x)


def test_a_zero_stride_in_the_source_broadcasts():
    board, row = Board(), anything((1, 1, 1, 7))
    here = Ddr(board, np.uint32, (0, 0, 0, 1))
    here.fill(row)
    shape = (2, 70, 3, 7)
    inside = (local(board, 0), shape, board.aligned(shape, np.uint32))
    transfer(board, "copy", (DDR, shape, (0, 0, 0, 1)), inside, np.uint32, nchw_copy=1)
    np.testing.assert_array_equal(board.take(shape, np.uint32, 0), np.broadcast_to(row, shape))


@pytest.mark.parametrize("name", ["dma_tensor", "dma_cw_transpose"])
def test_fills(name):
    board, shape = Board(), (2, 70, 1, 5)
    inside = (local(board, 3), shape, board.aligned(shape, np.uint16, 3))
    transfer(
        board,
        "copy",
        (DDR, shape, (1, 1, 1, 1)),
        inside,
        np.uint16,
        name,
        fill_constant_en=1,
        constant_value=0xABCD1234,
    )
    assert (board.take(shape, np.uint16, 3 * LANE) == 0x1234).all()


def test_masked_lanes_are_refused():
    fields = sizes("src", (1, 1, 1, 1)) | at("src", B8.coeff_base) | at("dst", B8.dma_local_base)
    for spec, mask in ((X, {"localmem_mask_l32": 1}), (X, {"localmem_mask_h32": 1}), (B8, {"localmem_mask_l32": 1})):
        with pytest.raises(SimulationError, match="mask of lanes"):
            Board(spec).run("dma_tensor", "copy", **mask, **fields)
    Board(B8).run("dma_tensor", "copy", nchw_copy=1, localmem_mask_h32=0, **fields)  # it has 32 lanes


def test_local_tensors_on_different_lanes():
    board, x = Board(), anything((1, 70, 1, 5))
    board.put(x, 3 * LANE)
    ends = [
        (local(board, lane, offset), x.shape, board.aligned(x.shape, np.uint32, lane))
        for lane, offset in ((3, 0), (60, 4096))
    ]
    transfer(board, "copy", *ends, np.uint32, nchw_copy=1)
    np.testing.assert_array_equal(board.take(x.shape, np.uint32, 60 * LANE + 4096), x)
