"""DMA of rows by index."""


import numpy as np
import pytest

from tests.runtime_sim.machine.instructions.board import (
    DDR,
    LANE,
    RNG,
    Board,
    Ddr,
    anything,
    at,
    local,
)


@pytest.mark.parametrize(("tables", "indices"), [(1, 1), (5, 1), (1, 5), (5, 5)])
@pytest.mark.parametrize("inside", [True, False])
def test_gathered_rows(tables, indices, inside):
    """One table or index serves all channels; a row that does not exist is the constant."""
    board, rows, width = Board(), 8, 3
    channels = max(tables, indices)
    table = anything((1, tables, 10, width), np.uint16)
    here = Ddr(board, np.uint16, (0, 31, width, 1))
    here.fill(table)
    index = RNG.integers(0, 12, (1, indices, rows, 1)).astype(np.uint32)
    Ddr(board, np.uint32, (0, rows + 3, 1, 0), offset=1 << 12).fill(index)
    place = local(board, 2) if inside else DDR + (1 << 13)
    strides = {"src_cstride": 31, "src_hstride": width, "dst_cstride": 32, "dst_hstride": width}
    strides |= {"index_cstride": rows + 3, "index_hstride": 1}
    counts = {
        "src_csize": tables,
        "src_hsize": 10,
        "src_wsize": width,
        "index_csize": indices,
        "index_hsize": rows,
    }
    addresses = at("src", DDR) | at("index", DDR + (1 << 12)) | at("dst", place)
    board.run(
        "dma_gather",
        "copy",
        stride_enable=1,
        src_data_format=3,
        constant_value=7,
        **strides | counts | addresses,
    )
    shape = (1, channels, rows, width)
    if inside:
        ours = board.take(shape, np.uint16, 2 * LANE, (0, 32, width, 1))
    else:
        ours = Ddr(board, np.uint16, (0, 32, width, 1), offset=1 << 13).read(shape)
    for c, i in np.ndindex(channels, rows):
        row = index[0, c % indices, i, 0]
        np.testing.assert_array_equal(ours[0, c, i], table[0, c % tables, row] if row < 10 else 7)


def test_scattered_rows_leave_the_others_alone():
    board, width = Board(), 3
    source = anything((1, 4, 5, width), np.uint16)
    Ddr(board, np.uint16, (0, 5 * width, width, 1)).fill(source)
    board.ddr[1 << 12 : (1 << 12) + 20] = np.array([7, 2, 8, 0, 5], np.uint32).view(np.uint8)
    before = anything((1, 4, 8, width), np.uint16)
    there = Ddr(board, np.uint16, (0, 8 * width, width, 1), offset=1 << 13)
    there.fill(before)
    board.run(
        "dma_scatter", "copy", stride_enable=1, src_data_format=3, src_csize=4, src_hsize=5, src_wsize=width,
        src_cstride=5 * width, src_hstride=width, index_csize=1, index_hsize=5, index_cstride=5, index_hstride=1,
        dst_csize=4, dst_hsize=8, dst_wsize=width, dst_cstride=8 * width, dst_hstride=width,
        **at("src", DDR) | at("index", DDR + (1 << 12)) | at("dst", DDR + (1 << 13)),
    )  # fmt: skip
    before[0, :, [7, 2, 0, 5]] = source[0, :, [0, 1, 3, 4]]
    np.testing.assert_array_equal(there.read((1, 4, 8, width)), before)
