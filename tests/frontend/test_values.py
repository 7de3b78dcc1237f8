"""Values of weights: NaN and infinity refused, numbers beyond the 16-bit type clipped and told."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from compiler.diagnostics import UserError
from frontend.binding import Expected, Weights, bind
from frontend.checkpoint import Checkpoint
from frontend.values import exceeds, peak, word

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [BF16, np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)]


def weights_of(folder, values, half=BF16) -> Weights:
    save_file({"w": values}, folder / "model.safetensors")
    return bind(Checkpoint(folder), folder, Expected({"w": values.shape}), half)


def ones(dtype, **changes) -> np.ndarray:
    """[5, 3] of ones but for the value at [3, 1]."""
    values = np.ones((5, 3), dtype)
    values[3, 1] = changes.get("odd", 1)
    return values


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_by_key_and_index(tmp_path, dtype, odd):
    weights = weights_of(tmp_path, ones(dtype, odd=odd))
    for rows in (slice(None), slice(2, 5)):
        with pytest.raises(
            UserError, match=r"key w in .*model.safetensors holds -?(nan|inf) at index \[3, 1\]"
        ):
            weights.read("w", rows)
    weights.read("w", slice(0, 3))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_in_range_are_read_as_stored(tmp_path, dtype, caplog):
    limit = np.nextafter(np.array(60000, dtype), np.array(0, dtype)) if dtype != BF16 else dtype.type(65280)
    values = ones(dtype, odd=-limit)
    weights = weights_of(tmp_path, values, np.float16)
    np.testing.assert_array_equal(weights.read("w"), values)
    assert weights.read("w").dtype == dtype
    weights.note_limited()
    assert not caplog.text


@pytest.mark.parametrize(
    ("dtype", "half", "odd", "limit"),
    [
        (BF16, np.float16, -65536, -65504),
        (np.float32, np.float16, 65505, 65504),
        (np.float32, BF16, 3.4e38, 3.3895314e38),
        (np.float64, BF16, -1e300, -3.3895314e38),
    ],
)
def test_values_beyond_the_target_are_clipped_and_told(tmp_path, caplog, dtype, half, odd, limit):
    weights = weights_of(tmp_path, ones(dtype, odd=odd), half)
    for _ in range(2):
        assert weights.read("w")[3, 1] == np.float32(limit)
        assert np.isfinite(weights.read("w").astype(half)).all()
    weights.note_limited()
    (record,) = caplog.records
    assert record.getMessage().endswith("were clipped: 1 of w")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_peak_is_the_largest_magnitude_of_either_sign(dtype):
    for values in ([-3, 2], [3, -2], [-3, -2], [0.0, -0.0], [3]):
        array = np.array(values, dtype)
        assert peak(array) == word(dtype, float(np.abs(array.astype(np.float64)).max()))


def test_no_values_exceed_nothing():
    assert not exceeds(np.ones((0, 3), np.float32), 1)
    assert exceeds(np.array(np.nan, np.float32), 1)
