"""Square roots and divisions: the iteration, and what is no ordinary number."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime_sim.machine.instructions.board import B8, bits, elementwise

F32 = np.dtype(np.float32)


def single(x):
    """A Python float rounded to f32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def root(x, steps):
    """The iteration, one f32 rounding per operation."""
    start = 0x5F3759DF - (struct.unpack("<i", struct.pack("<f", x))[0] >> 1)
    y = struct.unpack("<f", struct.pack("<i", start))[0]
    half = single(0.5 * x)
    for _ in range(steps):
        y = single(y * single(1.5 - single(single(half * y) * y)))
    return y


reasonable = st.floats(2.0**-26, 2.0**26, width=32)


@pytest.mark.parametrize("field", range(4))
@settings(max_examples=25)
@given(xs=st.lists(reasonable, min_size=1, max_size=9))
def test_reciprocal_square_roots_iterate_from_the_magic_constant(field, xs):
    x = np.array(xs, F32)
    ours = elementwise("rsqrt", x, name="sfu", opd2_n_str=field)
    assert list(ours) == [root(float(v), field + 1) for v in x]


@settings(max_examples=25)
@given(pairs=st.lists(st.tuples(reasonable, reasonable, st.booleans()), min_size=1, max_size=9))
def test_division_multiplies_by_the_square_of_the_root(pairs):
    a = np.array([x for x, _, _ in pairs], F32)
    b = np.array([-y if negative else y for _, y, negative in pairs], F32)
    for x, y, got in zip(a, b, elementwise("div", a, b, opd2_n_str=2), strict=True):
        r = root(abs(float(y)), 3)
        assert got == math.copysign(single(single(r * r) * float(x)), float(y))
        assert abs(float(got) / (float(x) / float(y)) - 1) < 1e-6


def test_dividing_by_what_is_no_ordinary_number():
    a = np.array([1, 0, 1, np.nan, 0], F32)
    b = np.array([0, 0, np.inf, 1, np.inf], F32)
    first = elementwise("div", a, b, opd2_n_str=2)
    assert first[0] == np.inf
    assert first[2] == np.inf, "an odd count of steps: the chip's own mistake"
    assert np.isnan(first[[1, 3]]).all()
    checked = elementwise("div", a, b, opd2_n_str=2, spec=B8)
    assert checked[0] == np.inf
    assert list(checked[[2, 4]]) == [0, 0]
    assert np.isnan(checked[[1, 3]]).all()


def test_roots_of_what_is_no_ordinary_number_on_bm1688():
    x = np.array([0.0, -0.0, np.inf, -1.0, np.nan], F32)
    got = bits(elementwise("rsqrt", x, name="sfu", spec=B8, opd2_n_str=3))
    assert [hex(v) for v in got] == ["0x7f800000", "0xff800000", "0x0", "0xffc00000", "0xffc00000"]


def test_roots_of_what_is_no_ordinary_number_on_bm1684x():
    """It only iterates."""
    got = elementwise("rsqrt", np.array([np.inf, -2.0, np.nan, 0.0], F32), name="sfu", opd2_n_str=3)
    assert list(got[:2]) == [np.inf, np.inf]
    assert np.isnan(got[2])
    assert got[3] == pytest.approx(6.7e19, rel=0.01)
