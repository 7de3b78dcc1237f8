"""Memories: what they hold at first, how channels lie, and where they end."""

import numpy as np
import pytest

from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from runtime_sim.machine.memory import FlatMemory, LocalMemory, split_channels
from tests.runtime_sim.machine.instructions.board import DDR, LANE, Board, X, at, shape_fields, sizes

ONE = shape_fields((1, 1, 1, 1))


def test_local_memory_starts_with_a_pattern_that_is_no_zero():
    machine = Machine(X)
    assert len(machine.local.bytes) == 16 << 20
    assert (machine.local.bytes.view(np.uint32) == 0xDEADBEEF).all()


@pytest.mark.parametrize(
    ("lane", "channels", "grids"),
    [
        (0, 64, [(0, 64, 0, 1, 0, 64)]),
        (0, 128, [(0, 128, 0, 2, 0, 64)]),
        (3, 5, [(0, 5, 0, 1, 3, 5)]),
        (0, 200, [(0, 192, 0, 3, 0, 64), (192, 200, 3, 1, 0, 8)]),
        (60, 70, [(0, 4, 0, 1, 60, 4), (4, 68, 1, 1, 0, 64), (68, 70, 2, 1, 0, 2)]),
    ],
)
def test_channels_are_cut_into_grids(lane, channels, grids):
    cut = split_channels(lane, channels, 64)
    assert [(g.start, g.stop, g.slot, g.slots, g.lane, g.lanes) for g in cut] == grids


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"res0_addr": LANE - 64, "res0_w": 65}, r"ends at byte 16385, a lane has 16384"),
        ({"res0_addr": 64 * LANE}, "is in no lane"),
        ({"res0_addr": 32}, "layout 0 at 0x20, which is no multiple of 64"),
        ({"res0_addr": 3, "res0_str": 3, "res0_prec": 2, "opd0_prec": 2}, "not a multiple of 4 bytes"),
        ({"res0_addr": LANE, "opd0_const": 0}, "opd0 and res0 start on different lanes"),
        ({"res0_c": 0}, r"shape \(1, 0, 1, 1\) has no items"),
        ({"res0_str": 4}, "layout code 4"),
        ({"res0_prec": 7, "opd0_prec": 7}, "precision code 7"),
    ],
)
def test_a_bad_operand_is_named_with_its_instruction(fields, message):
    with pytest.raises(SimulationError, match=message) as error:
        Board().run("ar", "copy", **{"opd0_const": 1} | ONE | fields)
    assert "in ar.copy" in str(error.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (DDR + (1 << 16) - 3, "end 1 bytes after region 'ddr'"),
        (DDR + (1 << 20), "in no mapped memory"),
        (DDR + 2, "not a multiple of 4"),
        (X.dma_local_base + 64 * LANE, "in no mapped memory"),
    ],
)
def test_a_transfer_from_nowhere_is_named(address, message):
    fields = sizes("src", (1, 1, 1, 1)) | at("src", address) | at("dst", X.dma_local_base)
    with pytest.raises(SimulationError, match=message) as error:
        Board().run("dma_tensor", "copy", nchw_copy=1, src_data_format=4, **fields)
    assert "in dma_tensor.copy" in str(error.value)


def test_a_transfer_may_reach_the_very_end():
    board = Board()
    fields = sizes("src", (1, 1, 1, 4)) | at("src", DDR + (1 << 16) - 16) | at("dst", X.dma_local_base)
    board.run("dma_tensor", "copy", nchw_copy=1, src_data_format=4, **fields)
    assert not board.memory[0, :16].any()


def test_regions_may_not_overlap_or_be_copies():
    memory = FlatMemory()
    memory.map(100, np.zeros(50, np.uint8))
    with pytest.raises(ValueError, match="overlap those at 0x64"):
        memory.map(149, np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="contiguous"):
        memory.map(500, np.zeros((4, 4), np.uint8)[:, ::2])


def test_regions_share_the_arrays_bytes():
    memory, data = FlatMemory(), np.zeros(4, np.uint32)
    memory.map(1 << 33, data)
    memory.view((1 << 33) + 4, (1,), (1,), np.dtype(np.uint32))[0] = 9
    assert list(data) == [0, 9, 0, 0]


BYTE, WORD = np.dtype(np.uint8), np.dtype(np.uint32)


def test_local_tensors_end_with_their_lane():
    memory = LocalMemory(lanes=4, lane_bytes=64)
    memory.pieces(3 * 64, (1, 1, 2, 8), (16, 16, 8, 1), WORD)
    memory.pieces(3 * 64 + 60, (1, 1, 1, 1), (1, 1, 1, 1), WORD)
    memory.pieces(0, (1, 8, 1, 8), (0, 8, 8, 1), WORD)
    for address, shape, strides, end in (
        (0, (1, 1, 2, 8), (16, 16, 9, 1), 68),
        (32, (1, 1, 1, 9), (9, 9, 9, 1), 68),
        (0, (2, 1, 1, 1), (16, 1, 1, 1), 68),
        (0, (1, 9, 1, 1), (1, 8, 1, 1), 68),
        (3 * 64, (1, 6, 1, 1), (1, 8, 1, 1), 68),  # from the last lane on it takes a third slot
    ):
        with pytest.raises(SimulationError, match=f"ends at byte {end}, a lane has 64"):
            memory.pieces(address, shape, strides, WORD)


def test_items_of_a_local_tensor_are_where_its_strides_say():
    memory = LocalMemory(lanes=4, lane_bytes=64)
    memory.bytes[:] = np.arange(256)
    shape, strides = (2, 7, 2, 3), (20, 9, 4, 1)
    found = np.concatenate(
        [piece.reshape(2, -1, 2, 3) for piece in memory.pieces(2 * 64 + 1, shape, strides, BYTE)], axis=1
    )
    for n, c, h, w in np.ndindex(shape):
        slot, lane = divmod(2 + c, 4)
        assert found[n, c, h, w] == lane * 64 + 1 + 20 * n + 9 * slot + 4 * h + w


def test_tensors_that_repeat_without_end_are_refused():
    with pytest.raises(SimulationError, match="reads local memory over and over"):
        LocalMemory(lanes=4, lane_bytes=64).pieces(0, (1, 1, 1, 1025), (0, 0, 0, 0), BYTE)
    memory = FlatMemory()
    memory.map(0, np.zeros(16, np.uint8))
    with pytest.raises(SimulationError, match="more than one instruction can move"):
        memory.view(0, (1 << 16, 1 << 16), (0, 0), BYTE)


def test_a_view_may_take_a_whole_region_and_no_byte_more():
    memory = FlatMemory()
    memory.map(1 << 32, np.arange(8, dtype=np.uint8), "first")
    memory.map((1 << 32) + 8, np.arange(8, 16, dtype=np.uint8))
    assert memory.view(1 << 32, (2, 4), (4, 1), BYTE).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert memory.view((1 << 32) + 8, (1,), (1,), BYTE).tolist() == [8]
    for address, shape, message in (
        (1 << 32, (9,), "9 bytes at 0x100000000 end 1 bytes after region 'first'"),
        ((1 << 32) - 1, (2,), "2 bytes at 0xffffffff are in no mapped memory"),
        ((1 << 32) + 16, (1,), "in no mapped memory"),
    ):
        with pytest.raises(SimulationError, match=message):
            memory.view(address, shape, (1,), BYTE)
