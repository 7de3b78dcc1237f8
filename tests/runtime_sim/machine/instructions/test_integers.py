"""AR on integers, against Python's integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.target.isa import ROUND
from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import (
    elementwise,
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
