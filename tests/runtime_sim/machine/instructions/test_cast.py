"""AR cast in every rounding mode, against rational arithmetic."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compiler.target.isa import ROUND
from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import BF16, elementwise
from tests.runtime_sim.machine.instructions.scalars import flushed, rounded, whole

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)
INTEGERS = [np.dtype(t) for t in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)]
FLOAT_MODES = ["even", "away", "zero", "down", "up"]
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
halves = st.integers(-(1 << 18), 1 << 18).map(lambda n: n / 2)
near_f16 = st.floats(-70000, 70000, width=32)
small = st.floats(-(2.0**-13), 2.0**-13, width=32)
integers = st.sampled_from(INTEGERS)
numbers = st.lists(st.one_of(finite, halves, near_f16, small), min_size=1, max_size=12)


def cast(x, dtype, mode="even"):
    dtype = np.dtype(dtype)
    return elementwise("cast", x, dtype=dtype, opd2_sign=int(dtype.kind != "u"), opd2_n_str=ROUND[mode])


@pytest.mark.parametrize("mode", FLOAT_MODES)
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
@settings(max_examples=40)
@given(xs=numbers)
@example(xs=[float(np.array(bits, np.uint32).view(F32)) for bits in (0xBF80FFFF, 0x3F80FFFF, 0x3F808000)])
def test_to_16_bits(mode, dtype, xs):
    x = np.array(xs, F32)
    flushes = dtype == BF16
    for value, got in zip(x, cast(x, dtype, mode), strict=True):
        wanted = rounded(flushed(float(value)), dtype, mode, flushes=flushes)
        if wanted in (math.inf, -math.inf) and directed_inward(wanted, mode) and dtype == BF16:
            assert abs(float(got)) == float(np.array(0x7F7F, np.uint16).view(BF16))
        else:
            assert float(got) == wanted


def directed_inward(infinity, mode):
    """Whether a mode rounds away from that infinity, so that the largest finite number remains."""
    return mode == "zero" or (mode == "down" and infinity > 0) or (mode == "up" and infinity < 0)


@pytest.mark.parametrize("mode", FLOAT_MODES)
@settings(max_examples=80)
@given(xs=numbers, dtype=integers)
def test_to_integers_rounds_and_then_cuts(mode, xs, dtype):
    x = np.array(xs, F32)
    limits = np.iinfo(dtype)
    for value, got in zip(x, cast(x, dtype, mode), strict=True):
        # A denormal is not flushed here: rounding up makes it 1.
        assert int(got) == min(max(whole(Fraction(float(value)), mode), limits.min), limits.max)


def test_what_is_no_number_becomes_an_integer_too():
    x = np.array([np.nan, np.inf, -np.inf], F32)
    assert [int(v) for v in cast(x, np.int16)] == [0, 32767, -32768]
    assert [int(v) for v in cast(x, np.uint8, "up")] == [0, 255, 0]


@pytest.mark.parametrize("mode", FLOAT_MODES)
@settings(max_examples=60)
@given(data=st.data(), source=integers)
def test_from_integers_rounds_once(mode, data, source):
    limits = np.iinfo(source)
    x = np.array(data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=9)), source)
    for dtype in (F32, BF16, F16):
        for value, got in zip(x, cast(x, dtype, mode), strict=True):
            wanted = rounded(Fraction(int(value)), dtype, mode)
            if wanted in (math.inf, -math.inf) and directed_inward(wanted, mode):
                wanted = math.copysign(65504, wanted)
            assert float(got) == wanted


@pytest.mark.parametrize("mode", FLOAT_MODES)
@settings(max_examples=30)
@given(xs=numbers)
def test_f32_to_f32_is_the_integer_value(mode, xs):
    x = np.array(xs, F32)
    for value, got in zip(x, cast(x, F32, mode), strict=True):
        assert float(got) == whole(Fraction(float(value)), mode)


def test_between_integers_values_are_cut_to_the_range():
    for source, result in itertools.product(INTEGERS, INTEGERS):
        limits, to = np.iinfo(source), np.iinfo(result)
        x = np.array([limits.min, 0, 1, 100, limits.max], source)
        assert [int(v) for v in cast(x, result)] == [min(max(int(v), to.min), to.max) for v in x]


def test_widening_is_exact():
    for dtype in (BF16, F16):
        words = np.array([0x0001, 0x8001, 0x3F81, 0x7BFF], np.uint16)
        np.testing.assert_array_equal(cast(words.view(dtype), F32), words.view(dtype).astype(F32))


def test_a_nan_keeps_its_sign():
    x = np.array([0x7FC00000, 0xFFC00001, 0x7F800001], np.uint32).view(F32)
    assert list(cast(x, BF16).view(np.uint16)) == [0x7FFF, 0xFFFF, 0x7FFF]
    half = np.array([0x7C01, 0xFE00], np.uint16).view(F16)
    assert list(cast(half, F32).view(np.uint32)) == [0x7FFFFFFF, 0xFFFFFFFF]


def test_what_the_chip_cannot_cast_is_refused():
    with pytest.raises(SimulationError, match="from bfloat16 to float16"):
        cast(np.ones(3, BF16), F16)
    with pytest.raises(SimulationError, match="mode 5 is for integer shifts"):
        cast(np.ones(3, F32), np.int8, "half_up")
