"""AR on floats against rational arithmetic, and the rules for what is not a number."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime_sim.machine import floats
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions import compare, reciprocal
from tests.runtime_sim.machine.instructions.board import B8, BF16, elementwise
from tests.runtime_sim.machine.instructions.scalars import exponent_of, flushed, rounded

F32 = np.dtype(np.float32)
F16 = np.dtype(np.float16)
OPERATIONS = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}
TINY = 2.0**-126

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
close = st.tuples(finite, st.integers(-3, 3))  # a number and one a few steps from it: sums that cancel


def bits(x):
    return np.asarray(x).view({2: np.uint16, 4: np.uint32}[np.asarray(x).dtype.itemsize])


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(finite, finite), min_size=1, max_size=9))
@example(pairs=[(1e-40, 1e-40), (-1e-40, 1.0), (TINY, -TINY * 1.5), (3e38, 3e38)])
@example(pairs=[(TINY * 1.4140625, 0.70703125), (TINY * 1.4140625, -0.70703125), (TINY, 0.5), (1, 2)])
def test_results_are_exact_and_rounded_once(kind, dtype, pairs):
    with np.errstate(over="ignore"):
        a, b = (np.array(column, F32).astype(dtype) for column in zip(*pairs, strict=True))
    flushes = dtype != F16
    ours = elementwise(kind, a, b)
    for x, y, got in zip(a.astype(float), b.astype(float), ours.astype(float), strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        exact = OPERATIONS[kind](*((flushed(x), flushed(y)) if flushes else (Fraction(x), Fraction(y))))
        # A 16-bit product is exact in f32, and flushed only once it is rounded; a sum is rounded twice.
        in_f32 = exact if kind == "mul" and dtype != F32 else rounded(exact, F32)
        wanted = rounded(in_f32, dtype, flushes=flushes) if isinstance(in_f32, Fraction) else in_f32
        assert Fraction(got) == wanted if isinstance(wanted, Fraction) else got == wanted


@settings(max_examples=40)
@given(st.lists(close, min_size=1, max_size=9))
def test_differences_of_neighbours_flush_to_zero(pairs):
    a = np.array([x for x, _ in pairs], F32)
    b = (bits(a) + np.array([step for _, step in pairs], np.int64).astype(np.uint32)).view(F32)
    kept = np.isfinite(b)
    for x, y, got in zip(a[kept], b[kept], elementwise("sub", a, b)[kept], strict=True):
        assert Fraction(float(got)) == rounded(flushed(float(x)) - flushed(float(y)), F32)


def test_zeros_keep_their_sign():
    a = np.array([-1e-40, 1e-40, -0.0, 0.0], F32)
    np.testing.assert_array_equal(
        bits(elementwise("mul", a, np.float32(1.0))), bits(np.copysign(0.0, a, dtype=F32))
    )


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_a_16_bit_nan_is_always_the_same(dtype):
    a = np.array([np.inf, -np.nan, 1.0], F32).astype(dtype)
    b = np.array([np.inf, 1.0, 2.0], F32).astype(dtype)
    assert list(bits(elementwise("sub", a, b))[:2]) == [0x7FFF, 0x7FFF]


NAN, SIGNALLING = 0x7FC00000, 0x7F800001
ONE, ZERO, MINUS_ZERO, DENORMAL = 0x3F800000, 0, 0x80000000, 5


@pytest.mark.parametrize(
    ("kind", "a", "b", "wanted"),
    [
        ("max", ONE, NAN, NAN),
        ("max", NAN, ONE, ONE),
        ("max", ZERO, MINUS_ZERO, MINUS_ZERO),
        ("max", MINUS_ZERO, ZERO, ZERO),
        ("max", DENORMAL, ZERO, ZERO),
        ("max", ONE, SIGNALLING, SIGNALLING),
        ("min", ONE, NAN, ONE),
        ("min", NAN, ONE, NAN),
        ("min", SIGNALLING, ONE, SIGNALLING),
        ("min", ZERO, MINUS_ZERO, MINUS_ZERO),
        ("min", MINUS_ZERO, ZERO, ZERO),
        ("min", ONE, DENORMAL, ZERO),
        ("fsubabs", ZERO, MINUS_ZERO, MINUS_ZERO),
        ("fsubabs", MINUS_ZERO, ZERO, ZERO),
        ("fsubabs", ONE, 0x40000000, ONE),
    ],
)
def test_which_operand_counts(kind, a, b, wanted):
    operands = [np.array([x, ONE], np.uint32).view(F32) for x in (a, b)]
    assert bits(elementwise(kind, *operands))[0] == wanted


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@settings(max_examples=20)
@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=9))
def test_max_and_min_of_numbers(dtype, pairs):
    with np.errstate(over="ignore"):
        a, b = (np.array(column, F32).astype(dtype) for column in zip(*pairs, strict=True))
    for kind, choose in (("max", max), ("min", min)):
        ours = elementwise(kind, a, b).astype(float)
        for x, y, got in zip(a.astype(float), b.astype(float), ours, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                both = (x, y) if dtype == F16 else (float(flushed(x)), float(flushed(y)))
                assert got == choose(both)


@pytest.mark.parametrize(
    ("kind", "a", "b", "chosen"),
    [
        ("select_gt", 0x40000000, ONE, True),
        ("select_gt", NAN, ONE, False),
        ("select_gt", DENORMAL, ZERO, False),
        ("select_eq", ONE, ONE, True),
        ("select_eq", ZERO, MINUS_ZERO, False),
        ("select_eq", NAN, NAN, True),
        ("select_eq", DENORMAL, ZERO, False),
        ("select_lt", ONE, 0x40000000, True),
        ("select_lt", NAN, ONE, True),
        ("select_lt", ONE, NAN, True),
        ("select_lt", NAN, NAN, False),
        ("select_lt", NAN, 0x7FC00001, True),
        ("select_lt", MINUS_ZERO, ZERO, False),
    ],
)
def test_what_a_comparison_selects(kind, a, b, chosen):
    operands = [np.array([x, ONE], np.uint32).view(F32) for x in (a, b)]
    payload = 0x41200000  # 10
    ours = elementwise(kind, *operands, tsk_opd_num=3, opd2_const=1, opd2_addr=payload, opd2_prec=2)
    assert bits(ours)[0] == (payload if chosen else 0)


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


@pytest.mark.parametrize("kind", ["and", "not"])
def test_bitwise_operations_are_for_integers(kind):
    x = np.ones(3, F32)
    with pytest.raises(SimulationError, match="float32"):
        elementwise(kind, x, None if kind == "not" else x)


def test_mixed_types_are_refused():
    with pytest.raises(SimulationError, match="mixes"):
        elementwise("add", np.ones(3, F32), np.ones(3, BF16))


def test_copies_keep_every_bit():
    x = np.array([SIGNALLING, DENORMAL, MINUS_ZERO, ONE], np.uint32).view(F32)
    np.testing.assert_array_equal(bits(elementwise("copy", x)), bits(x))
    np.testing.assert_array_equal(bits(elementwise("abs", -x)), bits(x) & 0x7FFFFFFF)


@settings(max_examples=30)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=9))
def test_without_the_hosts_help_the_results_are_the_same(pairs):
    a, b = (np.array(column, F32) for column in zip(*pairs, strict=True))
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        for kind in ("add", "sub", "max"):
            with_help = elementwise(kind, a, b)
            patch.setattr(floats, "HOST_FLUSHES", False)
            patch.setattr(floats, "_LIBRARY", None)
            np.testing.assert_array_equal(bits(elementwise(kind, a, b)), bits(with_help))
            patch.undo()


def test_this_host_flushes():
    """The bit-exact results at the edge of the denormals need it; see `floats.flush_denormals`."""
    assert floats.HOST_FLUSHES
    assert exponent_of(Fraction(3)) == 1
    assert reciprocal.MAGIC == 0x5F3759DF
    assert set(compare.FLOAT_COMPARE) == {"gt", "eq", "lt"}
