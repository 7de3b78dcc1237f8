"""DMA: the documented mapping from source items to destination items, walked item by item."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    B8,
    DDR,
    LANE,
    WIDTHS,
    Board,
    Ddr,
    X,
    anything,
    at,
    code_of,
    local,
)
from tests.runtime_sim.machine.instructions.transfers import row_major, shapes, transfer, widths


@settings(max_examples=20)
@given(data=st.data(), dtype=widths)
def test_without_nchw_copy_the_shape_may_change(data, dtype):
    n, c, h, w = data.draw(shapes)
    shape, other = (n, c, h, w), (1, w, n * c, h)
    board, x = Board(), anything(shape, dtype)
    here = Ddr(board, dtype, row_major(shape))
    here.fill(x)
    strides = board.aligned(other, dtype)
    if other[2] * other[3] * dtype.itemsize > LANE // 4:
        return
    transfer(board, "copy", (here.address, shape, here.strides), (local(board, 0), other, strides), dtype)
    np.testing.assert_array_equal(board.take(other, dtype, 0), x.reshape(other))


def test_a_copy_that_does_not_come_out_even_is_refused():
    board = Board()
    ends = [(DDR, (1, 3, 1, 4), (12, 4, 4, 1)), (local(board, 0), (1, 2, 1, 5), (16, 16, 16, 1))]
    with pytest.raises(SimulationError, match=r"shape \(1, 3, 1, 4\) into shape \(1, 2, 1, 5\)"):
        transfer(board, "copy", *ends, np.uint32)


@pytest.mark.parametrize(
    ("name", "kind", "axes"),
    [
        ("dma_tensor", "transpose", (1, 0, 2, 3)),
        ("dma_tensor", "collect", (0, 3, 2, 1)),
        ("dma_tensor", "distribute", (0, 3, 2, 1)),
        ("dma_cw_transpose", "copy", (0, 3, 2, 1)),
    ],
)
@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
def test_transposes(name, kind, axes, dtype):
    shape = (3, 9, 2, 70)
    result = tuple(shape[a] for a in axes)
    board, x = Board(), anything(shape, dtype)
    here = Ddr(board, dtype, row_major(shape, gap=1))
    here.fill(x)
    inside = (local(board, 0), result, board.aligned(result, dtype))
    transfer(board, kind, (here.address, shape, here.strides), inside, dtype, name)
    np.testing.assert_array_equal(board.take(result, dtype, 0), x.transpose(axes))


def test_broadcasts_to_lanes():
    board, x = Board(), anything((2, 1, 3, 5))
    here = Ddr(board, np.uint32, row_major(x.shape))
    here.fill(x)
    shape = (2, 30, 3, 5)
    inside = (local(board, 1), shape, board.aligned(shape, np.uint32, 1))
    transfer(board, "broadcast", (DDR, x.shape, here.strides), inside, np.uint32)
    np.testing.assert_array_equal(board.take(shape, np.uint32, LANE), np.broadcast_to(x, shape))
    assert (board.memory[[0, 31]].copy().view(np.uint32) == 0xDEADBEEF).all()


@settings(max_examples=40)
@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 700),
    width=st.integers(5, 20),
    lane=st.integers(0, 63),
    dtype=widths,
    out=st.booleans(),
    turn=st.booleans(),
    spec=st.sampled_from([X, B8]),
)
def test_matrices(rows, columns, width, lane, dtype, out, turn, spec):
    """R x C in flat memory, (R, C / w, 1, w) in the lanes, either way, with rows and columns exchanged or not."""
    board, matrix = Board(spec), anything((rows, columns), dtype)
    lane %= spec.lanes
    blocks = -(-columns // width)
    flat_shape = (columns, rows) if turn else (rows, columns)
    pitch = flat_shape[1] + 3
    flat = Ddr(board, dtype, (pitch, 1))
    strides = board.aligned((rows, blocks, 1, width), dtype, lane)
    ends = ("src", "dst") if out else ("dst", "src")
    fields = {f"{ends[0]}_nsize": rows, f"{ends[0]}_csize": blocks, f"{ends[0]}_wsize": width}
    fields |= {f"{ends[0]}_nstride": strides[0], f"{ends[0]}_cstride": strides[1]}
    fields |= {
        f"{ends[1]}_hsize": flat_shape[0],
        f"{ends[1]}_wsize": flat_shape[1],
        f"{ends[1]}_hstride": pitch,
    }
    fields |= at(ends[0], local(board, lane)) | at(ends[1], flat.address)
    padded = np.pad(matrix, ((0, 0), (0, blocks * width - columns))).reshape(rows, blocks, 1, width)
    kind = "transpose" if turn else "copy"
    if out:
        board.put(padded, lane * LANE)
    else:
        flat.fill(matrix.T if turn else matrix)
    board.run("dma_matrix", kind, stride_enable=1, src_data_format=code_of(dtype), **fields)
    if out:
        got = flat.read(flat_shape)
        np.testing.assert_array_equal(got.T if turn else got, matrix)
    else:
        got = board.take(padded.shape, dtype, lane * LANE).reshape(rows, -1)[:, :columns]
        np.testing.assert_array_equal(got, matrix)


def test_a_matrix_that_does_not_match_its_lanes_is_refused():
    fields = {"src_hsize": 2, "src_wsize": 9, "dst_nsize": 2, "dst_csize": 2, "dst_wsize": 4} | at("src", DDR)
    with pytest.raises(SimulationError, match="2 x 9 does not match"):
        Board().run("dma_matrix", "copy", stride_enable=1, **fields | at("dst", X.dma_local_base))
    with pytest.raises(SimulationError, match="2 x 9 does not match"):
        Board().run("dma_matrix", "copy", stride_enable=1, **fields | {"dst_wsize": 0} | at("dst", X.dma_local_base))
    with pytest.raises(SimulationError, match="nchw_copy clear"):
        Board().run("dma_matrix", "copy", stride_enable=1, nchw_copy=1, **fields)


def test_runs_of_items():
    board, x = Board(), anything(300, np.uint16)
    board.ddr.view(np.uint16)[:300] = x
    fields = {"src_data_format": code_of(np.uint16), "move_length": 300} | at("src", DDR)
    board.run("dma_general", "copy", **fields | at("dst", local(board, 7, 32)))
    np.testing.assert_array_equal(board.memory[7, 32:632].view(np.uint16), x)
    board.run("dma_general", "broadcast", dst_csize=40, **fields | at("dst", local(board, 0, 64)))
    assert (board.memory[:40, 64:664].copy().view(np.uint16) == x).all()
    assert (board.memory[40:, 64:664].copy().view(np.uint32) == 0xDEADBEEF).all()
