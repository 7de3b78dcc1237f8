"""Weights of several tensors as one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.quant import quantize
from dialects.chip import Packed
from driver.blob import Materializer, convert

RNG = np.random.default_rng(0)
PARTS = {
    "bf16": RNG.standard_normal((64, 64)).astype(ml_dtypes.bfloat16),
    "f16": RNG.standard_normal((64, 64)).astype(np.float16),
    "f32": RNG.standard_normal((64, 64)).astype(np.float32),
    "f64": RNG.standard_normal((64, 64)),
}
EXACT = np.concatenate([part.astype(np.float32) for part in PARTS.values()])


def materializer() -> Materializer:
    return Materializer(PARTS.__getitem__, {}, 64)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_parts_of_several_types_are_each_converted_to_the_target(half):
    joined = convert(materializer().joined(tuple(PARTS)), np.dtype(half))
    np.testing.assert_array_equal(joined, EXACT.astype(half))


def test_parts_of_several_types_are_quantized_by_their_values():
    source = Packed(tuple(PARTS), 0, 256, 0, 64, bits=4, group=32, symmetric=False, scale=BF16)
    got, expected = materializer().quantized(source), quantize(EXACT, 4, 32, False, BF16.numpy)
    np.testing.assert_array_equal(got.dequantize(), expected.dequantize())


def test_parts_of_one_type_stay_in_it():
    assert materializer().joined(("f16", "f16")).dtype == np.float16
