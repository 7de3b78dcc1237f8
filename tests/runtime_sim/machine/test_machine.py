"""A core of a chip: memories that are shared, what is not modelled, and what does nothing."""

import numpy as np
import pytest

from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from tests.runtime_sim.machine.instructions.board import (
    B8,
    LANE,
    Board,
    X,
    at,
    instruction,
    shape_fields,
    sizes,
)

ONE = shape_fields((1, 1, 1, 1))


def test_lanes_may_be_larger_than_the_chips():
    machine = Machine(B8, lane_bytes=1 << 20)
    machine.execute(instruction(B8, "ar", "copy", opd0_const=1, opd0_addr=7, res0_addr=(1 << 20) + 64, **ONE))
    assert machine.local.bytes[(1 << 20) + 64] == 7


def test_products_are_exact_unless_told_otherwise():
    assert Machine(X, lane_bytes=LANE).exact


def test_memories_may_be_shared():
    first = Machine(B8, lane_bytes=LANE)
    second = Machine(B8, ddr=first.ddr, local=first.local)
    first.execute(instruction(B8, "ar", "copy", opd0_const=1, opd0_addr=7, **ONE))
    assert second.local.bytes[0] == 7


def test_what_nobody_models_is_refused_by_name():
    for name, kind in (("conv", "normal"), ("dma_nonzero", "copy"), ("ar", "mac"), ("sfu", "normalize")):
        with pytest.raises(SimulationError, match=f"{name}.{kind}"):
            Board().run(name, kind, **sizes("src", (1, 1, 1, 1)) if name.startswith("dma") else ONE)


def test_ends_and_messages_do_nothing():
    board = Board(B8)
    before = board.memory.copy()
    board.run("sys", "send_msg", imm=5)
    board.run("dma_sys", "wait", constant_value=5)
    np.testing.assert_array_equal(board.memory, before)


def test_on_chip_memory_behind_the_dma_is_there():
    board = Board()
    board.memory[0, :16] = range(16)
    there = at("src", X.dma_local_base) | at("dst", X.l2_base) | sizes("src", (1, 1, 1, 4))
    board.run("dma_tensor", "copy", nchw_copy=1, src_data_format=4, **there)
    back = at("src", X.l2_base) | at("dst", X.dma_local_base + LANE) | sizes("src", (1, 1, 1, 4))
    board.run("dma_tensor", "copy", nchw_copy=1, src_data_format=4, **back)
    assert list(board.memory[1, :16]) == list(range(16))
