"""AR on integers, against Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.target.isa import ROUND
from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    B8,
    Board,
    code_of,
    elementwise,
    shape_fields,
    stride_fields,
)
from tests.runtime_sim.machine.instructions.scalars import whole

TYPES = [np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)]
OPERATIONS = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}

types = st.sampled_from(TYPES)


@st.composite
def pairs(draw):
    """Two arrays of possibly different types, with extremes likely."""
    out = []
    count = draw(st.integers(1, 9))
    for _ in range(2):
        dtype = draw(types)
        limits = np.iinfo(dtype)
        value = st.one_of(st.integers(limits.min, limits.max), st.sampled_from([limits.min, limits.max]))
        out.append(np.array(draw(st.lists(value, min_size=count, max_size=count)), dtype))
    return out


def wrapped(value, dtype):
    return int(np.array(value % (1 << 8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype))


@pytest.mark.parametrize("kind", OPERATIONS)
@given(pairs(), types)
def test_results_wrap(kind, operands, result):
    a, b = operands
    ours = elementwise(kind, a, b, result)
    assert [int(v) for v in ours] == [
        wrapped(OPERATIONS[kind](int(x), int(y)), result) for x, y in zip(a, b, strict=True)
    ]


@pytest.mark.parametrize("kind", ["adds", "subs", "muls"])
@settings(max_examples=100)
@given(pairs(), types, st.integers(-20, 3), st.sampled_from(sorted(ROUND)))
def test_saturating_results_are_shifted_and_cut(kind, operands, result, amount, mode):
    a, b = operands
    signed = kind == "subs" or "i" in (a.dtype.kind, b.dtype.kind)
    limits = np.iinfo(np.dtype(f"{'i' if signed else 'u'}{result.itemsize}"))
    shift = {"tsk_opd_num": 3, "opd2_const": 1, "opd2_addr": amount & 0xFF, "opd2_n_str": ROUND[mode]}
    ours = elementwise(kind, a, b, result, **shift).view(limits.dtype)
    for x, y, got in zip(a, b, ours, strict=True):
        exact = Fraction(OPERATIONS[kind[:-1]](int(x), int(y))) * Fraction(2) ** amount
        assert int(got) == min(max(whole(exact, mode), limits.min), limits.max)


def test_a_difference_without_a_shift_is_cut_too():
    a, b = np.array([200, 3], np.uint8), np.array([10, 9], np.uint8)
    assert list(elementwise("subs", a, b, np.int8)) == [127, -6]
    assert list(elementwise("sub", a, b, np.int8)) == [-66, -6]


@pytest.mark.parametrize("mode", ROUND)
@settings(max_examples=40)
@given(data=st.data(), kind=st.sampled_from(["ashift", "logic_shift"]))
def test_shifts(mode, data, kind):
    dtype = data.draw(types)
    limits = np.iinfo(dtype)
    count = data.draw(st.integers(1, 9))
    xs = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=count, max_size=count))
    amounts = data.draw(st.lists(st.integers(-40, 31), min_size=count, max_size=count))
    a, b = np.array(xs, dtype), np.array(amounts, np.int8)
    filled = a.view(f"u{dtype.itemsize}") if kind == "logic_shift" else a
    wanted = [
        wrapped(whole(Fraction(int(x)) * Fraction(2) ** amount, mode), dtype)
        for x, amount in zip(filled, amounts, strict=True)
    ]
    assert [int(v) for v in elementwise(kind, a, b, dtype, opd2_n_str=ROUND[mode])] == wanted
    constant = elementwise(kind, a, b[0], dtype, opd2_n_str=ROUND[mode])
    assert int(constant[0]) == wanted[0]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_bits_and_extremes(dtype):
    limits = np.iinfo(dtype)
    a, b = np.array([limits.min, 5, limits.max], dtype), np.array([3, 12, limits.min], dtype)
    functions = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    functions |= {"max": np.maximum, "min": np.minimum}
    for kind, function in functions.items():
        np.testing.assert_array_equal(elementwise(kind, a, b), function(a, b))
    np.testing.assert_array_equal(elementwise("not", a), ~a)


def test_operands_the_chip_refuses():
    with pytest.raises(SimulationError, match="signed and an unsigned"):
        elementwise("max", np.ones(3, np.int8), np.ones(3, np.uint8))
    with pytest.raises(SimulationError, match=r"ar\.and of uint8 and uint16"):
        elementwise("and", np.ones(3, np.uint8), np.ones(3, np.uint16), np.uint16)
    with pytest.raises(SimulationError, match="shift amount in memory"):
        elementwise("adds", np.ones(3, np.int8), np.ones(3, np.int8), tsk_opd_num=3)


def test_two_instructions_take_nibbles_apart():
    """Low and high halves of bytes, stored to every second byte: how BM1684X reads 4-bit weights."""
    board = Board()
    packed = np.random.default_rng(0).integers(0, 256, (1, 70, 24, 1), dtype=np.uint8)
    board.put(packed, 0)
    strides = (2 * 64, 64, 2, 1)
    shared = {"res0_prec": 0, "opd0_prec": 0, "opd1_const": 1, "tsk_opd_num": 2, "res0_str": 3}
    shared |= shape_fields(packed.shape) | stride_fields("res0", strides)
    board.run("ar", "and", **shared, opd1_addr=15, res0_addr=4096)
    board.run("ar", "ashift", **shared, opd1_addr=0xFC, opd1_sign=1, opd2_n_str=3, res0_addr=4097)
    nibbles = board.take((1, 70, 1, 48), np.uint8, 4096, strides=(128, 64, 48, 1))
    both = np.stack([packed & 15, packed >> 4], axis=3).reshape(1, 70, 1, 48)
    np.testing.assert_array_equal(nibbles, both)


def test_bm1688_reads_4_bit_items():
    board = Board(B8)
    packed = np.random.default_rng(0).integers(0, 256, (2, 40, 3, 32), dtype=np.uint8)
    board.put(packed, 0)
    zeros = np.random.default_rng(1).integers(0, 16, (2, 40, 3, 1), dtype=np.uint8)
    board.put(zeros, 2048, strides=(6, 3, 1, 1))
    board.run(
        "ar", "subs", opd0_prec=6, opd1_prec=0, res0_prec=0, tsk_opd_num=2, opd1_str=3, opd1_addr=2048,
        res0_addr=4096, **shape_fields((2, 40, 3, 64)), **stride_fields("opd1", (6, 3, 1, 0)),
    )  # fmt: skip
    codes = np.stack([packed & 15, packed >> 4], axis=4).reshape(2, 40, 3, 64)
    np.testing.assert_array_equal(
        board.take((2, 40, 3, 64), np.int8, 4096), codes.astype(np.int8) - zeros.astype(np.int8)
    )
    board.run(
        "ar", "cast", opd0_prec=6, opd0_sign=1, opd2_sign=1, res0_prec=code_of(np.float32), res0_addr=4096,
        **shape_fields((2, 40, 3, 64)),
    )  # fmt: skip
    signed = np.where(codes > 7, codes.astype(np.int8) - 16, codes)
    np.testing.assert_array_equal(board.take((2, 40, 3, 64), np.float32, 4096), signed)
