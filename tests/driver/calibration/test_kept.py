"""Codes on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from driver.calibration.kept import Vector, shelf


@pytest.mark.parametrize("scheme", [Scheme(4, 16, True, BF16), Scheme(4, 16, False, BF16), Scheme(8, 32, False, BF16)], ids=str)
def test_codes_are_read_as_they_were_put(tmp_path, scheme):
    rng = np.random.default_rng(0)
    weights = [quantize(rng.normal(size=(6, 64)).astype(np.float32), scheme) for _ in range(2)]
    source = SimpleNamespace(shape=(6, 64), key="key", path=Path("file"), nbytes=768)
    with shelf(tmp_path) as kept:
        assert [*tmp_path.iterdir()] == []
        for weight, codes in zip(weights, [kept.put(source, each) for each in weights], strict=True):
            for rows in (slice(None), slice(2, 5)):
                found = codes.read(rows)
                np.testing.assert_array_equal(found.dequantize(), weight.dequantize()[rows])
            assert (codes.shape, codes.key, codes.scheme, codes.dtype) == ((6, 64), "key", scheme, None)


def test_a_vector_stands_for_another():
    source = SimpleNamespace(shape=(3,), key="norm", path=Path("file"), nbytes=6)
    vector = Vector(source, np.float32([1, 2, 3]))
    assert (vector.key, vector.shape, vector.scheme) == ("norm", (3,), None)
    read = vector.read(slice(1, 3))
    read[:] = 0
    assert vector.read().tolist() == [1, 2, 3]
