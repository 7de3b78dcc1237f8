"""Group quantization and the DDR tiles of weights."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.weights.quant import Quantized, TileFormat, pack, quantize, to_float32, unpack

BF16 = np.dtype(ml_dtypes.bfloat16)
F16 = np.dtype(np.float16)


def gaussian(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


def relative_error(quantized: Quantized, weight: np.ndarray) -> float:
    return float(np.sum((quantized.dequantize() - weight) ** 2) / np.sum(weight**2))


def error_of_plain_ranges(weight: np.ndarray, group: int) -> float:
    """Relative squared error of 4-bit codes spread evenly over the range of each group."""
    groups = weight.reshape(-1, group)
    low = np.minimum(groups.min(1, keepdims=True), 0)
    scale = ((np.maximum(groups.max(1, keepdims=True), 0) - low) / 15).astype(BF16).astype(np.float32)
    zero = np.rint(-low / scale)
    restored = (np.clip(np.rint(groups / scale) + zero, 0, 15) - zero) * scale
    return float(np.sum((restored - groups) ** 2) / np.sum(groups**2))


@pytest.mark.parametrize("group", [32, 64, 128])
def test_4_bit_scales_beat_plain_ranges(group):
    weight = gaussian(64, 512)
    assert relative_error(quantize(weight, 4, group, False, BF16), weight) < 0.94 * error_of_plain_ranges(
        weight, group
    )


@pytest.mark.parametrize(
    ("bits", "symmetric", "bound"), [(4, False, 8e-3), (4, True, 9e-3), (8, True, 5e-5), (8, False, 5e-5)]
)
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_error_stays_within_the_step_of_the_codes(bits, symmetric, bound, dtype):
    weight = gaussian(96, 256)
    assert relative_error(quantize(weight, bits, 64, symmetric, dtype), weight) < bound


def test_codes_scales_and_zeros_have_the_documented_types_and_ranges():
    weight = gaussian(32, 128)
    four = quantize(weight, 4, 32, False, BF16)
    assert (four.codes.dtype, four.scales.dtype, four.zeros.dtype) == (np.uint8, BF16, np.uint8)
    assert four.scales.shape == four.zeros.shape == (32, 4)
    assert four.codes.max() <= 15
    assert four.zeros.max() <= 15
    assert quantize(weight, 4, 32, True, BF16).zeros is None
    eight = quantize(weight, 8, 32, False, F16)
    assert (eight.codes.dtype, eight.scales.dtype, eight.zeros) == (np.int8, F16, None)
    assert eight.codes.min() >= -127


def test_weights_on_the_grid_come_back_exactly():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (8, 64))
    codes[:, ::32], codes[:, 1::32] = 0, 15  # every group spans the whole range
    weight = ((codes - 6) * 0.25).astype(np.float32)
    np.testing.assert_array_equal(quantize(weight, 4, 32, False, BF16).dequantize(), weight)


@pytest.mark.parametrize("sign", [1, -1])
def test_symmetric_codes_reach_the_larger_end_on_either_side(sign):
    weight = np.tile(np.float32([8, -7, 1, 0]) * sign, (2, 4))
    np.testing.assert_array_equal(quantize(weight, 4, 4, True, BF16).dequantize(), weight)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-12, 0.5, -3.0, 6e4])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_constant_groups_are_finite_and_near(value, symmetric, dtype):
    restored = quantize(np.full((2, 64), value, np.float32), 4, 32, symmetric, dtype).dequantize()
    np.testing.assert_allclose(restored, value, rtol=2**-8, atol=1e-7)


def test_chunks_do_not_change_the_result(monkeypatch):
    weight = gaussian(40, 192)
    whole = quantize(weight, 4, 64, False, BF16)
    monkeypatch.setattr("compiler.weights.quant.CHUNK_WEIGHTS", 7 * 64)
    parts = quantize(weight, 4, 64, False, BF16)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scales, parts.scales)


def test_bfloat16_weights_are_read_exactly():
    weight = gaussian(16, 64).astype(BF16)
    np.testing.assert_array_equal(to_float32(weight), weight.astype(np.float32))
    np.testing.assert_array_equal(
        quantize(weight, 8, 64, True, BF16).codes,
        quantize(weight.astype(np.float32), 8, 64, True, BF16).codes,
    )


def test_bad_requests_are_refused():
    weight = gaussian(4, 96)
    with pytest.raises(ValueError, match="96 columns are not a multiple of group 64"):
        quantize(weight, 4, 64, False, BF16)
    with pytest.raises(ValueError, match="3 bits"):
        quantize(weight, 3, 32, False, BF16)
    weight[2, 5] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize(weight, 4, 32, False, BF16)
    with pytest.raises(ValueError, match="split a group"):
        quantize(gaussian(4, 96), 4, 32, False, BF16).tile(slice(0, 4), slice(0, 48))


@pytest.mark.parametrize(("bits", "symmetric"), [(4, False), (4, True), (8, True)])
def test_weights_that_decode_beyond_the_type_of_the_scales_are_refused(bits, symmetric):
    weight = gaussian(4, 64)
    weight[1, 3] = 7e4
    assert np.isfinite(quantize(weight, bits, 32, symmetric, BF16).dequantize()).all()
    with pytest.raises(ValueError, match=r"decoded, it goes up to \d+, which is beyond float16 \(65504\)"):
        quantize(weight, bits, 32, symmetric, F16)
    weight[1, 3] = 1e19
    with pytest.raises(ValueError, match="magnitudes beyond 1e\\+18"):
        quantize(weight, bits, 32, symmetric, BF16)


tiles = st.builds(
    lambda rows, groups, group, bits, symmetric, lanes: TileFormat(
        rows, groups * group, bits, 0 if bits == 16 else group, symmetric, lanes
    ),
    rows=st.integers(1, 150),
    groups=st.integers(1, 5),
    group=st.sampled_from([2, 8, 32, 64]),
    bits=st.sampled_from([4, 8, 16]),
    symmetric=st.booleans(),
    lanes=st.sampled_from([32, 64]),
)


def random_weights(tile: TileFormat, rng: np.random.Generator) -> Quantized | np.ndarray:
    if tile.bits == 16:
        return rng.normal(size=(tile.rows, tile.columns)).astype(F16)
    codes = rng.integers(0, 16, (tile.rows, tile.columns)).astype(np.uint8 if tile.bits == 4 else np.int8)
    scales = rng.normal(size=(tile.rows, tile.groups)).astype(F16)
    zeros = rng.integers(0, 16, scales.shape).astype(np.uint8) if tile.has_zeros else None
    return Quantized(codes, scales, zeros, tile.bits, tile.group)


def arrays(weights: Quantized | np.ndarray) -> list[np.ndarray]:
    parts = [weights.codes, weights.scales, weights.zeros] if isinstance(weights, Quantized) else [weights]
    return [part for part in parts if part is not None]


@given(tile=tiles, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_unpack_undoes_pack(tile, seed):
    weights = random_weights(tile, np.random.default_rng(seed))
    data = pack(tile, weights)
    assert data.shape == (tile.lanes, tile.run_bytes)
    assert data.nbytes == tile.total_bytes
    for ours, back in zip(arrays(weights), arrays(unpack(tile, data, F16)), strict=True):
        np.testing.assert_array_equal(ours, back)


@given(tile=tiles)
@settings(max_examples=60)
def test_sections_of_a_run_are_in_order_and_aligned(tile):
    assert tile.codes_offset + tile.code_bytes <= tile.scales_offset
    assert tile.scales_offset + tile.scale_bytes <= tile.zeros_offset
    assert tile.zeros_offset + tile.zero_bytes <= tile.run_bytes
    assert tile.scales_offset % 2 == tile.run_bytes % 64 == 0
    assert (
        tile.run_bytes < tile.code_bytes + tile.scale_bytes + tile.zero_bytes + 1 + 64
    )  # the least possible


def test_sections_are_aligned_only_where_padding_pays_for_it():
    tight = TileFormat(192, 576, 4, 64)  # 864 bytes of codes, 54 of scales, 27 of zeros
    assert (tight.scales_offset, tight.zeros_offset, tight.run_bytes) == (864, 918, 960)
    roomy = TileFormat(64, 96, 8, 4)  # 96 bytes of codes, 48 of scales: three times 64 either way
    assert (roomy.scales_offset, roomy.run_bytes) == (128, 192)


def test_bytes_of_a_small_tile_written_by_hand():
    tile = TileFormat(rows=3, columns=4, bits=4, group=2, lanes=2)
    weights = Quantized(
        codes=np.uint8([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        scales=np.float16([[1, 2], [3, 4], [5, 6]]),
        zeros=np.uint8([[1, 2], [3, 4], [5, 6]]),
        bits=4,
        group=2,
    )
    data = pack(tile, weights)
    assert data[0, :4].tolist() == [0x31, 0x42, 0xB9, 0xCA]  # rows 0 and 2
    assert data[1, :4].tolist() == [0x75, 0x86, 0, 0]  # row 1, and no fourth row
    assert data[0, 4:12].view(F16).tolist() == [1, 2, 5, 6]
    assert data[:, 12:16].tolist() == [[1, 2, 5, 6], [3, 4, 0, 0]]
    assert not data[:, 16:].any()


def test_the_last_tile_of_a_matrix_is_filled_with_zeros():
    quantized = quantize(gaussian(100, 64), 4, 32, False, BF16)
    tile = TileFormat(64, 64, 4, 32)
    back = unpack(tile, pack(tile, quantized.tile(slice(64, 128))), BF16)
    np.testing.assert_array_equal(back.dequantize()[:36], quantized.dequantize()[64:])
    assert not back.dequantize()[36:].any()


def test_pack_writes_into_the_given_bytes_and_clears_their_padding():
    weights = gaussian(64, 24).astype(BF16)  # runs of 48 bytes, padded to 64
    out = np.full((64, 128), 255, np.uint8)
    pack(TileFormat(64, 24, 16), weights, out[:, :64])
    np.testing.assert_array_equal(out[:, :64], pack(TileFormat(64, 24, 16), weights))
    assert not out[:, 48:64].any()
    assert (out[:, 64:] == 255).all()


@pytest.mark.parametrize(
    ("tile", "weights", "message"),
    [
        (TileFormat(64, 64, 16), np.zeros((65, 64), F16), "do not fit"),
        (TileFormat(64, 64, 16), np.zeros((64, 64), np.float32), "float32 values"),
        (TileFormat(64, 64, 4, 32, symmetric=True), quantize(gaussian(64, 64), 4, 32, False, F16), "True"),
        (TileFormat(64, 64, 4, 64), quantize(gaussian(64, 64), 4, 32, False, F16), "32, True"),
    ],
)
def test_weights_of_another_form_are_refused(tile, weights, message):
    with pytest.raises(ValueError, match=message):
        pack(tile, weights)


@pytest.mark.parametrize(("columns", "bits", "group"), [(64, 3, 32), (63, 4, 21), (64, 8, 48), (64, 4, 0)])
def test_impossible_tiles_are_refused(columns, bits, group):
    with pytest.raises(ValueError, match=r"columns|bits"):
        TileFormat(64, columns, bits, group)
