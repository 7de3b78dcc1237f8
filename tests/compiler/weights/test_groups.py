"""The search for scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16, F16
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, to_float32

FOUR, EIGHT = Scheme(4, 32, True, BF16), Scheme(8, 64, False, BF16)
SYMMETRIC = Scheme(4, 32, False, BF16)


def gaussian(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


def relative_error(quantized: Quantized, weight: np.ndarray) -> float:
    return float(np.sum((quantized.dequantize() - weight) ** 2) / np.sum(weight**2))


def error_of_plain_ranges(weight: np.ndarray, group: int) -> float:
    """Relative squared error of 4-bit codes spread evenly over the range of each group."""
    groups = weight.reshape(-1, group)
    low = np.minimum(groups.min(1, keepdims=True), 0)
    scale = ((np.maximum(groups.max(1, keepdims=True), 0) - low) / 15).astype(BF16.numpy).astype(np.float32)
    zero = np.rint(-low / scale)
    restored = (np.clip(np.rint(groups / scale) + zero, 0, 15) - zero) * scale
    return float(np.sum((restored - groups) ** 2) / np.sum(groups**2))


@pytest.mark.parametrize("group", [32, 64, 128])
def test_4_bit_scales_beat_plain_ranges(group):
    weight = gaussian(64, 512)
    error = relative_error(quantize(weight, Scheme(4, group, True, BF16)), weight)
    assert error < 0.94 * error_of_plain_ranges(weight, group)


@pytest.mark.parametrize(
    ("bits", "zeros", "bound"), [(4, True, 8e-3), (4, False, 9e-3), (8, False, 5e-5), (8, True, 3e-5)]
)
@pytest.mark.parametrize("scale", [BF16, F16], ids=str)
def test_error_stays_within_the_step_of_the_codes(bits, zeros, bound, scale):
    weight = gaussian(96, 256)
    assert relative_error(quantize(weight, Scheme(bits, 64, zeros, scale)), weight) < bound


def test_codes_scales_and_zeros_have_the_documented_types_and_ranges():
    weight = gaussian(32, 128)
    four = quantize(weight, FOUR)
    assert (four.codes.dtype, four.scales.dtype, four.zeros.dtype) == (np.uint8, BF16.numpy, np.uint8)
    assert four.scales.shape == four.zeros.shape == (32, 4)
    assert four.codes.max() <= 15
    assert four.zeros.max() <= 15
    assert quantize(weight, SYMMETRIC).zeros is None
    eight = quantize(weight, Scheme(8, 32, False, F16))
    assert (eight.codes.dtype, eight.scales.dtype, eight.zeros) == (np.int8, np.float16, None)
    assert eight.codes.min() >= -127
    wide = quantize(weight + 0.05, Scheme(8, 32, True, F16))
    assert (wide.codes.dtype, wide.zeros.dtype) == (np.uint8, np.uint8)
    assert wide.codes.max() > 127


def test_weights_on_the_grid_come_back_exactly():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (8, 64))
    codes[:, ::32], codes[:, 1::32] = 0, 15  # every group spans the whole range
    weight = ((codes - 6) * 0.25).astype(np.float32)
    np.testing.assert_array_equal(quantize(weight, FOUR).dequantize(), weight)


@pytest.mark.parametrize("sign", [1, -1])
def test_symmetric_codes_reach_the_larger_end_on_either_side(sign):
    weight = np.tile(np.float32([8, -7, 1, 0]) * sign, (2, 4))
    np.testing.assert_array_equal(quantize(weight, Scheme(4, 4, False, BF16)).dequantize(), weight)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-12, 0.5, -3.0, 6e4])
@pytest.mark.parametrize("scale", [BF16, F16], ids=str)
def test_constant_groups_are_finite_and_near(value, zeros, scale):
    restored = quantize(np.full((2, 64), value, np.float32), Scheme(4, 32, zeros, scale)).dequantize()
    np.testing.assert_allclose(restored, value, rtol=2**-8, atol=1e-7)


def test_chunks_do_not_change_the_result(monkeypatch):
    weight = gaussian(40, 192)
    whole = quantize(weight, FOUR)
    monkeypatch.setattr("compiler.weights.groups.CHUNK_WEIGHTS", 7 * 32)
    parts = quantize(weight, FOUR)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scales, parts.scales)


def test_bfloat16_weights_are_read_exactly():
    weight = gaussian(16, 64).astype(BF16.numpy)
    np.testing.assert_array_equal(to_float32(weight), weight.astype(np.float32))
    np.testing.assert_array_equal(
        quantize(weight, EIGHT).codes,
        quantize(weight.astype(np.float32), EIGHT).codes,
    )


def test_bad_requests_are_refused():
    weight = gaussian(4, 96)
    with pytest.raises(ValueError, match="input axis 96 is not a multiple of group 64"):
        quantize(weight, EIGHT)
    with pytest.raises(ValueError, match="codes of 3 bits"):
        quantize(weight, Scheme(3, 32, False, BF16))
    with pytest.raises(ValueError, match="has minimums, which only checkpoints bring"):
        quantize(weight, Scheme(4, 32, False, F16, minimum=True))
    weight[2, 5] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize(weight, FOUR)


@pytest.mark.parametrize(("bits", "zeros"), [(4, False), (4, True), (8, False), (8, True)])
def test_weights_that_decode_beyond_the_type_of_the_scales_are_refused(bits, zeros):
    weight = gaussian(4, 64)
    weight[1, 3] = 7e4
    wide, narrow = (Scheme(bits, 32, zeros, scale) for scale in (BF16, F16))
    assert np.isfinite(quantize(weight, wide).dequantize()).all()
    with pytest.raises(ValueError, match=r"decoded, it goes up to [\d.]+, which is beyond float16 \(65504\)"):
        quantize(weight, narrow)
    weight[1, 3] = 1e19
    with pytest.raises(ValueError, match="magnitudes beyond 1e\\+18"):
        quantize(weight, wide)


def weighted_error(quantized: Quantized, weight: np.ndarray, importance: np.ndarray) -> float:
    return float(np.sum((quantized.dequantize() - weight) ** 2 * importance))


@pytest.mark.parametrize("scheme", [FOUR, SYMMETRIC, EIGHT], ids=["four", "symmetric", "eight"])
def test_errors_are_small_where_they_matter(scheme):
    weight = gaussian(96, 256)
    importance = np.exp(np.random.default_rng(1).normal(0, 2, 256)).astype(np.float32)
    plain, weighted = quantize(weight, scheme), quantize(weight, scheme, importance)
    assert weighted_error(weighted, weight, importance) < 0.9 * weighted_error(plain, weight, importance)
    assert relative_error(weighted, weight) >= relative_error(plain, weight)


@pytest.mark.parametrize("importance", [0, 1e-30, 1, 7e20])
def test_columns_that_matter_alike_change_nothing(importance):
    weight = gaussian(700, 256)  # several chunks
    alike = quantize(weight, FOUR, np.full(256, importance, np.float32))
    plain = quantize(weight, FOUR)
    for part in ("codes", "scales", "zeros"):
        np.testing.assert_array_equal(getattr(alike, part), getattr(plain, part))


def test_rows_are_chosen_by_themselves_whatever_matters():
    weight, importance = gaussian(700, 256), np.arange(256, dtype=np.float32)
    whole, part = quantize(weight, FOUR, importance), quantize(weight[613:615, 64:], FOUR, importance[64:])
    np.testing.assert_array_equal(whole.codes[613:615, 64:], part.codes)


def test_a_group_that_does_not_matter_is_stored_all_the_same():
    weight, importance = gaussian(8, 64), np.ones(64, np.float32)
    importance[32:] = 0
    assert relative_error(quantize(weight, FOUR, importance), weight) < 0.5
