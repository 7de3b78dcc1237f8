"""Blocks of GGUF as codes and as floats, beside the package's own formulas."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

from compiler.diagnostics import UserError
from compiler.gguf import GgufTensor
from compiler.weights.stored import to_float32
from frontend.sources.blocks import SCHEMES, CodeBlocks, FloatBlocks
from tests.ggufs import PACKED
from tests.helpers import random_tensor

ROWS, COLUMNS, START = 12, 96, 40


def stored(folder: Path, kind: Kind, data: np.ndarray) -> GgufTensor:
    """A tensor that lies behind some other bytes."""
    (folder / "file").write_bytes(bytes(START) + data.tobytes() + bytes(7))
    return GgufTensor("w", kind, (ROWS, COLUMNS), START)


def by_hand(kind: Kind, seed: int = 0):
    """Codes, scales, minimums, and their blocks."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-128 if kind == Kind.Q8_0 else 0, 128 if kind == Kind.Q8_0 else 16, (ROWS, COLUMNS // 32, 32))
    scales, minimums = (rng.standard_normal(codes.shape[:2]).astype(np.float16) for _ in range(2))
    return codes.reshape(ROWS, COLUMNS), scales, minimums, PACKED[kind](codes, scales, minimums).reshape(ROWS, -1)


@pytest.mark.parametrize("kind", SCHEMES)
def test_codes_are_those_that_were_packed(tmp_path, kind):
    codes, scales, minimums, blocks = by_hand(kind)
    source = CodeBlocks(stored(tmp_path, kind, blocks), tmp_path / "file", (ROWS, COLUMNS))
    read = source.read()
    np.testing.assert_array_equal(read.codes, codes)
    np.testing.assert_array_equal(read.scales, scales)
    assert read.zeros is None
    assert (read.minimums is None) == (kind != Kind.Q4_1)
    if read.minimums is not None:
        np.testing.assert_array_equal(read.minimums, minimums)
    np.testing.assert_array_equal(read.dequantize(), dequantize(blocks, kind))
    assert (source.scheme, source.dtype, source.nbytes, source.key) == (read.scheme, None, blocks.nbytes, "w")


@pytest.mark.parametrize("rows", [slice(None), slice(3, 7), slice(10, 40)])
@pytest.mark.parametrize("order", [None, tuple(np.random.default_rng(3).permutation(ROWS).tolist())])
def test_some_items_in_the_parameters_order(tmp_path, rows, order):
    _, _, _, blocks = by_hand(Kind.Q4_1)
    tensor, path = stored(tmp_path, Kind.Q4_1, blocks), tmp_path / "file"
    whole = dequantize(blocks, Kind.Q4_1)[list(order or range(ROWS))]
    np.testing.assert_array_equal(CodeBlocks(tensor, path, (ROWS, COLUMNS), order).read(rows).dequantize(), whole[rows])
    np.testing.assert_array_equal(FloatBlocks(tensor, path, (ROWS, COLUMNS), order).read(rows), whole[rows])


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q5_0, Kind.Q8_0])
def test_floats_are_as_the_package_reads_them(tmp_path, kind):
    data = quantize(random_tensor(ROWS, COLUMNS), kind)
    tensor = stored(tmp_path, kind, data)
    source = FloatBlocks(tensor, tmp_path / "file", (ROWS, COLUMNS))
    values = source.read()
    np.testing.assert_array_equal(to_float32(values), dequantize(data, kind))
    types = {Kind.F32: np.float32, Kind.F16: np.float16, Kind.BF16: ml_dtypes.bfloat16}
    assert source.dtype == types.get(kind)
    assert values.dtype == types.get(kind, np.float32)
    added = FloatBlocks(tensor, tmp_path / "file", (ROWS, COLUMNS), added=-1.0).read()
    np.testing.assert_array_equal(added, dequantize(data, kind) - 1)


def test_blocks_of_a_table_are_rounded_once_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr("frontend.sources.blocks.ROWS_AT_ONCE", 5)
    _, _, _, blocks = by_hand(Kind.Q8_0)
    half = np.dtype(ml_dtypes.bfloat16)
    tensor = stored(tmp_path, Kind.Q8_0, blocks)
    read = FloatBlocks(tensor, tmp_path / "file", (ROWS, COLUMNS), rounded=half).read(slice(1, None))
    assert read.dtype == half
    np.testing.assert_array_equal(read, dequantize(blocks, Kind.Q8_0)[1:].astype(half))


def test_vectors_and_several_axes(tmp_path):
    values = random_tensor(ROWS, COLUMNS)
    stored(tmp_path, Kind.F32, values)
    vector = FloatBlocks(GgufTensor("v", Kind.F32, (8,), START), tmp_path / "file", (8,))
    np.testing.assert_array_equal(vector.read(slice(2, 5)), values.reshape(-1)[2:5])
    cube = FloatBlocks(GgufTensor("c", Kind.F32, (3, 4, COLUMNS), START), tmp_path / "file", (3, 4, COLUMNS))
    np.testing.assert_array_equal(cube.read(slice(1, 3)), values.reshape(3, 4, COLUMNS)[1:])


def test_what_no_program_computes_with_is_refused(tmp_path):
    _, scales, _, _ = by_hand(Kind.Q4_1)
    scales[3, 1] = np.inf
    blocks = PACKED[Kind.Q4_1](np.zeros((ROWS, COLUMNS // 32, 32), int), np.ones_like(scales), scales)
    source = CodeBlocks(stored(tmp_path, Kind.Q4_1, blocks), tmp_path / "file", (ROWS, COLUMNS))
    with pytest.raises(UserError, match=r"file: w has a minimum that is not finite"):
        source.read()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="has become shorter while it was read"):
        source.read()
    (tmp_path / "file").unlink()
    with pytest.raises(UserError, match=r"cannot read .*file"):
        source.read()


def test_equal_sources_are_those_of_one_tensor(tmp_path):
    tensor = GgufTensor("w", Kind.Q8_0, (ROWS, COLUMNS), START)
    same = [CodeBlocks(tensor, tmp_path / "file", (ROWS, COLUMNS), (1, 0)) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != CodeBlocks(tensor, tmp_path / "file", (ROWS, COLUMNS))
