"""Which of two floats is larger, and what a comparison selects."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime_sim.machine.instructions.board import BF16, bits, elementwise
from tests.runtime_sim.machine.instructions.scalars import flushed

F32 = np.dtype(np.float32)
F16 = np.dtype(np.float16)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


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
