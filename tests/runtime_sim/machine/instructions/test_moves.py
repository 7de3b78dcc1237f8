"""Layouts, selections, transposes and gathers: what moves items without changing them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.target.isa import ALIGNED, COMPACT, PER_CHANNEL, STRIDED
from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    B8,
    BF16,
    LANE,
    Board,
    X,
    code_of,
    shape_fields,
    stride_fields,
)

F32 = np.dtype(np.float32)
RNG = np.random.default_rng(0)
WIDTHS = [np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32)]

shapes = st.tuples(st.integers(1, 2), st.integers(1, 140), st.integers(1, 3), st.integers(1, 6))


def anything(shape, dtype=np.uint32):
    return RNG.integers(0, 1 << 8 * np.dtype(dtype).itemsize, shape).astype(dtype)


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


@pytest.mark.parametrize("offset", [-4, X.static_bytes - 16])
def test_rows_beyond_static_memory_are_refused(offset):
    with pytest.raises(SimulationError, match="not all in static memory"):
        Board().run(
            "tsbc", "s_bc", res0_prec=2, opd0_addr=X.tiu_static_base + offset, **shape_fields((1, 4, 1, 5))
        )
