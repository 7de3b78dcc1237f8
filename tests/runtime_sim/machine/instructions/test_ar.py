"""AR on floats against rational arithmetic, and the rules for what is not a number."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime_sim.machine import floats
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions import compare, reciprocal
from tests.runtime_sim.machine.instructions.board import BF16, bits, elementwise
from tests.runtime_sim.machine.instructions.scalars import exponent_of, flushed, rounded

F32 = np.dtype(np.float32)
F16 = np.dtype(np.float16)
OPERATIONS = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}
TINY = 2.0**-126
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
close = st.tuples(finite, st.integers(-3, 3))  # a number and one a few steps from it: sums that cancel


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
