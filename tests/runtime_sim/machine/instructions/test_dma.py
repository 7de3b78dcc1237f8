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
    sizes,
    steps,
)

shapes = st.tuples(st.integers(1, 2), st.integers(1, 140), st.integers(1, 3), st.integers(1, 6))
widths = st.sampled_from(WIDTHS)


def row_major(shape, gap=0):
    _, c, h, w = shape
    return (c * (h * w + gap), h * w + gap, w, 1)


def transfer(board, kind, source, target, dtype, name="dma_tensor", **fields):
    """source and target: (address, shape, strides); a command with strides of its own."""
    ends = {}
    for end, (address, shape, strides) in (("src", source), ("dst", target)):
        ends |= at(end, address) | sizes(end, shape) | steps(end, strides)
    board.run(name, kind, **{"stride_enable": 1, "src_data_format": code_of(dtype)} | ends | fields)


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
