"""Floats of 8 bits with scales."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from compiler.diagnostics import UserError
from frontend.checkpoint import Checkpoint
from frontend.sources.find import Found, find_sources
from frontend.sources.settings import Settings

FP8 = ml_dtypes.float8_e4m3fn


def found_in(folder: Path, settings: Settings | None = None, **tensors: np.ndarray) -> Found:
    save_file({f"m.{name}": values for name, values in tensors.items()}, folder / "model.safetensors")
    return find_sources(Checkpoint(folder), settings)


def random_floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal(shape).astype(FP8)


@pytest.mark.parametrize(("block", "settings"), [(128, None), (64, Settings(Path("c"), "fp8", block=(64, 64)))])
def test_a_scale_of_each_block(tmp_path, block, settings):
    weight = random_floats(200, 160)
    blocks = tuple(-(-size // block) for size in weight.shape)
    scales = np.random.default_rng(3).random(blocks).astype(np.float32)
    found = found_in(tmp_path, settings, weight=weight, weight_scale_inv=scales, input_scale=np.ones(1, np.float32))
    (source,) = found.sources.values()
    expected = np.empty(weight.shape, np.float32)
    for row, column in np.ndindex(weight.shape):
        expected[row, column] = np.float32(weight[row, column]) * scales[row // block, column // block]
    np.testing.assert_array_equal(source.read(), expected)
    np.testing.assert_array_equal(source.read(slice(150, 190)), expected[150:190])
    assert (source.shape, source.scheme, source.dtype) == (weight.shape, None, FP8)


@pytest.mark.parametrize("shape", [(), (1,), (48,), (48, 1)])
def test_a_scale_for_all_or_for_each_row(tmp_path, shape):
    weight, scales = random_floats(48, 32), np.random.default_rng(3).random(shape).astype(ml_dtypes.bfloat16)
    found = found_in(tmp_path, weight=weight, weight_scale=np.asarray(scales, ml_dtypes.bfloat16))
    (source,) = found.sources.values()
    rows = np.broadcast_to(np.float32(scales).reshape(-1, 1), (48, 1))
    np.testing.assert_array_equal(source.read(slice(5, 9)), (np.float32(weight) * rows)[5:9])


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"weight_scale": np.ones(3, np.float32)}, "m.weight_scale: expected one, or one for each of 48 rows, found shape [3]"),
        ({"weight_scale_inv": np.ones((2, 1), np.float32)}, "m.weight_scale_inv: expected shape [1, 1], found [2, 1]"),
        ({"weight_scale": np.ones(1, np.int32)}, "m.weight_scale: expected float16 or bfloat16 or float32, found int32"),
        (
            {"weight": np.ones((48, 32), np.int8), "weight_scale": np.ones(1, np.float32)},
            "m.weight: expected floats of 8 bits, found weight int8 [48, 32], weight_scale float32 [1]",
        ),
    ],
)
def test_odd_modules_are_named(tmp_path, tensors, problem):
    found = found_in(tmp_path, **({"weight": random_floats(48, 32)} | tensors))
    assert found.problems == {"m.weight": problem}


def test_a_scale_that_is_no_number_is_refused(tmp_path):
    found = found_in(tmp_path, weight=random_floats(48, 32), weight_scale=np.array([np.nan], np.float32))
    (source,) = found.sources.values()
    with pytest.raises(UserError, match=r"m.weight_scale in .* holds nan at index \[0\]"):
        source.read()
