"""Layouts of operands: lanes, strides, constants."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.target.isa import ALIGNED, COMPACT, PER_CHANNEL, STRIDED
from tests.runtime_sim.machine.instructions.board import (
    B8,
    LANE,
    WIDTHS,
    Board,
    X,
    anything,
    code_of,
    shape_fields,
    stride_fields,
)

shapes = st.tuples(st.integers(1, 2), st.integers(1, 140), st.integers(1, 3), st.integers(1, 6))


def copied(board, x, layout, lane=0, **fields):
    """x read through a layout code, stored EU-aligned."""
    address = lane * LANE
    code = code_of(x.dtype)
    usual = {"res0_prec": code, "opd0_prec": code, "opd0_str": layout, "tsk_opd_num": 1}
    board.run("ar", "copy", **usual | {"res0_addr": address + 8192, "opd0_addr": address} | fields)


@settings(max_examples=25)
@given(shape=shapes, lane=st.integers(0, 63), dtype=st.sampled_from(WIDTHS), spec=st.sampled_from([X, B8]))
def test_channels_go_round_the_lanes_from_any_start(shape, lane, dtype, spec):
    lane %= spec.lanes
    x, board = anything(shape, dtype), Board(spec)
    board.put(x, lane * LANE)
    wanted = board.memory.copy()
    copied(board, x, ALIGNED, lane, **shape_fields(shape))
    ours, board.memory = board.memory, wanted
    board.put(x, lane * LANE + 8192)
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
def test_compact_tensors_and_scalars_of_channels(spec):
    shape = (2, 70, 3, 5)
    x, board = anything(shape), Board(spec)
    board.put(x, 0, strides=(-(-70 // spec.lanes) * 15, 15, 5, 1))
    copied(board, x, COMPACT, **shape_fields(shape))
    np.testing.assert_array_equal(board.take(shape, np.uint32, 8192), x)
    scalars = anything((1, 70, 1, 1))
    board.put(scalars, 0, strides=(0, 1, 0, 0))
    copied(board, scalars, PER_CHANNEL, **shape_fields(shape))
    np.testing.assert_array_equal(board.take(shape, np.uint32, 8192), np.broadcast_to(scalars, shape))


@settings(max_examples=25)
@given(shape=shapes, zero=st.lists(st.booleans(), min_size=4, max_size=4))
def test_free_strides_broadcast_where_they_are_zero(shape, zero):
    n, c, h, w = (1 if z else size for size, z in zip(shape, zero, strict=True))
    x, board = anything((n, c, h, w)), Board()
    strides = (3 * h * w, h * w, 1, h)  # columns first
    if zero[1]:
        x = np.broadcast_to(x, (n, shape[1], h, w))
    board.put(np.ascontiguousarray(x), 0, strides=(strides[0], 0 if zero[1] else strides[1], *strides[2:]))
    used = [0 if z else s for s, z in zip(strides, zero, strict=True)]
    if zero[1] and shape[1] > 64:
        x = board.take((n, shape[1], h, w), np.uint32, 0, strides=(strides[0], 0, *strides[2:]))
    copied(board, x, STRIDED, **shape_fields(shape), **stride_fields("opd0", used))
    np.testing.assert_array_equal(board.take(shape, np.uint32, 8192), np.broadcast_to(x, shape))


def test_everything_is_read_before_anything_is_written():
    """A tensor moved over itself by an item or by a slot, one in several pieces and one in a single piece."""
    for channels, by in itertools.product((70, 128), (1, 20)):
        x, board = anything((1, channels, 1, 9)), Board()
        strides = (40, 20, 20, 1)
        board.put(x, 0, strides)
        both = {"res0_str": STRIDED, **stride_fields("opd0", strides), **stride_fields("res0", strides)}
        copied(board, x, STRIDED, **shape_fields(x.shape), **both | {"res0_addr": 4 * by})
        np.testing.assert_array_equal(board.take(x.shape, np.uint32, 4 * by, strides), x)


def test_constants_fill():
    board = Board()
    board.run(
        "ar",
        "copy",
        res0_prec=5,
        opd0_prec=5,
        opd0_const=1,
        opd0_addr=0x40490FDB,
        res0_c=70,
        res0_n=1,
        res0_h=1,
        res0_w=3,
    )
    assert (board.take((1, 70, 1, 3), np.uint16, 0) == 0x0FDB).all()
