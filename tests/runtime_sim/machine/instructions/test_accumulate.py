"""Sums of products made term by term in rationals, in the documented order."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_sim.machine.floats import flush_denormals
from runtime_sim.machine.instructions.accumulate import accumulate
from tests.runtime_sim.machine.instructions.board import BF16, words
from tests.runtime_sim.machine.instructions.scalars import dot

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 30), depth=st.integers(1, 80), spread=st.sampled_from([0, 2, 18]))
def test_sums_are_cut_and_rounded_block_by_block(block, dtype, seed, depth, spread):
    rng = np.random.default_rng(seed)
    spread = min(spread, 2) if dtype == F16 else spread
    a, b = words(rng, (depth, 3), dtype, spread), words(rng, (depth, 2), dtype, spread)
    start = words(rng, (3, 2), F32, 3)
    wide = [x.astype(F32) for x in (a, b)]
    for c in (None, start):
        with flush_denormals():
            ours = accumulate(*wide, c, block)
        for m in range(3):
            for n in range(2):
                first = None if c is None else Fraction(float(c[m, n]))
                assert Fraction(float(ours[m, n])) == dot(a[:, m].tolist(), b[:, n].tolist(), block, first)


def test_tiny_products_are_flushed_and_sums_too_small_for_f32_scaling_are_exact():
    """Block sums around the bottom of f32, where the fast scaling does not reach."""
    rng = np.random.default_rng(3)
    a, b = (words(rng, (64, 4), BF16, 2).astype(F32) * np.float32(2.0**-60) for _ in range(2))
    with flush_denormals():
        ours = accumulate(a, b, None, 32)
    for m in range(4):
        for n in range(4):
            assert Fraction(float(ours[m, n])) == dot(a[:, m].tolist(), b[:, n].tolist(), 32)


@pytest.mark.parametrize(
    ("products", "wanted"),
    [
        ([math.nan, 1.0], 0xFFC00000),
        ([math.inf, 1.0], 0x7F800000),
        ([-math.inf, 1.0], 0xFF800000),
        ([math.inf, -math.inf], 0xFFC00000),
        ([math.inf, math.nan], 0x7F800000),
        ([3e38, 3e38], 0x7F800000),
        ([-0.0, -0.0], 0),
    ],
)
def test_what_is_no_number(products, wanted):
    a = np.array(products, F32)[:, None]
    with flush_denormals(), np.errstate(all="ignore"):
        total = accumulate(a, np.array([[1.0], [1.0]], F32), None, 32)
    assert total.view(np.uint32)[0, 0] == wanted


@pytest.mark.parametrize(
    ("product", "start", "wanted"), [(1.0, 0x7F800001, 0x7FC00001), (math.nan, 0x7FC00007, 0xFFC00000)]
)
def test_of_two_nans_the_products_counts(product, start, wanted):
    """The second row is ordinary: 1 on top of 2."""
    left, right = np.array([[product, 1.0]], F32), np.ones((1, 1), F32)
    starts = np.array([[start], [0x40000000]], np.uint32).view(F32)
    with flush_denormals(), np.errstate(all="ignore"):
        total = accumulate(left, right, starts, 32)
    assert [hex(x) for x in total.view(np.uint32).ravel()] == [hex(wanted), "0x40400000"]
