"""The tiles that hold weights in DDR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.types import BF16, F16, F32
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, Weight, rectangle
from compiler.weights.tile import Tile, pack, unpack
from tests.helpers import random_tensor

FOUR = Scheme(4, 32, True, F16)


OFFSETS = {"none": {}, "zeros": {"zeros": True}, "minimum": {"minimum": True}}


def stored_as(bits: int, group: int, offset: str = "none") -> Scheme:
    return Scheme(bits, group, **{"zeros": False, "scale": F16} | OFFSETS[offset])


tiles = st.builds(
    lambda rows, groups, group, bits, offset, lanes, neighbours: Tile(
        rows, groups * group, F16 if bits == 16 else stored_as(bits, group, offset), lanes, 64, neighbours
    ),
    rows=st.integers(1, 150),
    groups=st.integers(1, 5),
    group=st.sampled_from([2, 8, 32, 64]),
    bits=st.sampled_from([4, 8, 16]),
    offset=st.sampled_from(list(OFFSETS)),
    lanes=st.sampled_from([32, 64]),
    neighbours=st.booleans(),
)


def random_weights(tile: Tile, rng: np.random.Generator) -> Weight:
    if tile.scheme is None:
        return rng.normal(size=(tile.rows, tile.columns)).astype(np.float16)
    codes = rng.integers(0, tile.scheme.highest + 1, (tile.rows, tile.columns)).astype(tile.scheme.codes)
    scales, minimums = (rng.normal(size=(tile.rows, tile.groups)).astype(np.float16) for _ in range(2))
    zeros = rng.integers(0, 256, scales.shape).astype(np.uint8) if tile.scheme.zeros else None
    return Quantized(codes, scales, zeros, tile.scheme, minimums if tile.scheme.minimum else None)


def arrays(weights: Weight) -> list[np.ndarray]:
    if not isinstance(weights, Quantized):
        return [weights]
    parts = [weights.codes, weights.scales, weights.zeros, weights.minimums]
    return [part for part in parts if part is not None]


@given(tile=tiles, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_unpack_undoes_pack(tile, seed):
    weights = random_weights(tile, np.random.default_rng(seed))
    data = pack(tile, weights)
    assert data.shape == (tile.lanes, tile.run_bytes)
    assert data.nbytes == tile.total_bytes
    for ours, back in zip(arrays(weights), arrays(unpack(tile, data)), strict=True):
        np.testing.assert_array_equal(ours, back)


@given(tile=tiles)
@settings(max_examples=60)
def test_sections_of_a_run_are_in_order_and_aligned(tile):
    assert tile.codes_offset + tile.code_bytes <= tile.scales_offset
    assert tile.scales_offset + tile.scale_bytes <= tile.zeros_offset
    assert tile.zeros_offset + tile.zero_bytes <= tile.minimums_offset
    assert tile.minimum_bytes == 0 or tile.minimums_offset + tile.minimum_bytes <= tile.run_bytes
    assert tile.zeros_offset + tile.zero_bytes <= tile.run_bytes
    assert tile.scales_offset % 2 == tile.minimums_offset % 2 == tile.run_bytes % 64 == 0
    parts = tile.code_bytes + tile.scale_bytes + tile.zero_bytes + tile.minimum_bytes
    assert tile.run_bytes < parts + 1 + 64  # the least possible


def test_sections_are_aligned_only_where_padding_pays_for_it():
    tight = Tile(192, 576, stored_as(4, 64, "zeros"), 64, 64)  # 864 bytes of codes, 54 of scales, 27 of zeros
    assert (tight.scales_offset, tight.zeros_offset, tight.run_bytes) == (864, 918, 960)
    roomy = Tile(64, 96, stored_as(8, 4), 64, 64)  # 96 bytes of codes, 48 of scales: three times 64 either way
    assert (roomy.scales_offset, roomy.run_bytes) == (128, 192)


def test_bytes_of_a_small_tile_written_by_hand():
    scheme = Scheme(bits=4, group=2, zeros=True, scale=F16)
    tile = Tile(rows=3, columns=4, stored=scheme, lanes=2, section=64)
    weights = Quantized(
        codes=np.uint8([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        scales=np.float16([[1, 2], [3, 4], [5, 6]]),
        zeros=np.uint8([[1, 2], [3, 4], [5, 6]]),
        scheme=scheme,
    )
    data = pack(tile, weights)
    assert data[0, :4].tolist() == [0x31, 0x42, 0xB9, 0xCA]  # rows 0 and 2
    assert data[1, :4].tolist() == [0x75, 0x86, 0, 0]  # row 1, and no fourth row
    assert data[0, 4:12].view(np.float16).tolist() == [1, 2, 5, 6]
    assert data[:, 12:16].tolist() == [[1, 2, 5, 6], [3, 4, 0, 0]]
    assert not data[:, 16:].any()
    beside = pack(replace(tile, neighbours=True), weights)
    assert beside[:, :4].tolist() == [[0x21, 0x43, 0xA9, 0xCB], [0x65, 0x87, 0, 0]]
    np.testing.assert_array_equal(beside[:, 4:], data[:, 4:])


def test_minimums_lie_behind_the_scales_and_codes_of_8_bits_count_from_zero():
    scheme = Scheme(bits=8, group=2, zeros=False, scale=F16, minimum=True)
    tile = Tile(rows=2, columns=2, stored=scheme, lanes=2, section=64)
    weights = Quantized(np.uint8([[0, 255], [128, 1]]), np.float16([[1], [2]]), None, scheme, np.float16([[-3], [4]]))
    data = pack(tile, weights)
    assert data[:, :2].tolist() == [[0, 255], [128, 1]]
    assert data[:, 2:6].copy().view(np.float16).tolist() == [[1, -3], [2, 4]]
    assert weights.dequantize().tolist() == [[-3, 252], [260, 6]]


def test_the_last_tile_of_a_matrix_is_filled_with_zeros():
    quantized = quantize(random_tensor(100, 64), FOUR)
    tile = Tile(64, 64, FOUR, 64, 64)
    back = unpack(tile, pack(tile, rectangle(quantized, slice(64, 128))))
    assert isinstance(back, Quantized)
    np.testing.assert_array_equal(back.dequantize()[:36], quantized.dequantize()[64:])
    assert not back.dequantize()[36:].any()


@pytest.mark.parametrize("section", [16, 64])
def test_runs_are_padded_to_the_vector_width_with_zeros(section):
    tile = Tile(64, 20, BF16, 64, section)  # runs of 40 bytes
    data = pack(tile, random_tensor(64, 20).astype(BF16.numpy))
    assert tile.run_bytes == data.shape[1] == {16: 48, 64: 64}[section]
    assert not data[:, 40:].any()


def test_rows_of_16_bit_weights_are_filled_up_as_matrix_operands_are():
    weights = random_tensor(130, 50).astype(BF16.numpy)
    tile = Tile(130, 50, BF16, 64, 64)
    rows = pack(tile, weights)[1].view(BF16.numpy).reshape(3, 64)
    np.testing.assert_array_equal(rows[:, :50], weights[1::64])
    assert not rows[:, 50:].any()


@pytest.mark.parametrize(
    ("stored", "weights", "message"),
    [
        (F16, np.zeros((65, 64), np.float16), "do not fit"),
        (F16, np.zeros((64, 64), np.float32), "float32 values in a tile of f16"),
        (F16, np.zeros((64, 64), BF16.numpy), "bfloat16 values in a tile of f16"),
        (FOUR, np.zeros((64, 64), np.float16), "float16 values in a tile of #weights.scheme"),
        (stored_as(4, 32), quantize(random_tensor(64, 64), FOUR), "zeros = true.* in a tile of .*zeros = false"),
        (stored_as(4, 64, "zeros"), quantize(random_tensor(64, 64), FOUR), "group = 32.* in a tile of .*group = 64"),
        (Scheme(4, 32, True, BF16), quantize(random_tensor(64, 64), FOUR), "scale = f16.* in a tile of .*bf16"),
        (F16, quantize(random_tensor(64, 64), FOUR), "in a tile of f16"),
    ],
)
def test_weights_of_another_form_are_refused(stored, weights, message):
    with pytest.raises(ValueError, match=message):
        pack(Tile(64, 64, stored, 64, 64), weights)


@pytest.mark.parametrize(
    ("tile", "reason"),
    [
        (Tile(0, 64, F16, 64, 64), "no rows"),
        (Tile(64, 64, F16, 0, 64), "no rows, columns, lanes"),
        (Tile(64, 64, F32, 64, 64), "expected 16 bits or a scheme"),
        (Tile(64, 48, FOUR, 64, 64), "48 is not a multiple of group 32"),
    ],
)
def test_impossible_tiles_say_what_is_wrong(tile, reason):
    assert reason in (tile.problem() or "")


@given(tile=tiles)
def test_tiles_of_whole_groups_are_possible(tile):
    assert tile.problem() is None
