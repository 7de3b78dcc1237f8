"""Reading tensors of safetensors files, and the broken ones that are refused."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.diagnostics import UserError
from compiler.frontend.checkpoint import Checkpoint, read_header


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_tensor_reads_as_the_reference_library_reads_it(tiny_checkpoint, dtype, shards):
    folder = tiny_checkpoint("llama", dtype=dtype, shards=shards)
    checkpoint = Checkpoint(folder)
    reference = {}
    for path in folder.glob("*.safetensors"):
        reference |= load_file(path)
    assert set(checkpoint) == set(reference)
    for key, values in reference.items():
        ours = checkpoint[key].read()
        assert ours.dtype == values.dtype
        np.testing.assert_array_equal(ours, values)


def test_scalars_empty_tensors_and_integers_are_read(tmp_path):
    tensors = {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), ml_dtypes.bfloat16),
        "int": np.arange(6, dtype=np.int64).reshape(2, 3),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for key, values in tensors.items():
        np.testing.assert_array_equal(checkpoint[key].read(), values)
        assert checkpoint[key].read().shape == values.shape


@pytest.mark.parametrize("rows", [slice(0, 3), slice(2, None), slice(9, 4), slice(-2, None), slice(7, 100)])
def test_rows_are_read_alone(tmp_path, rows):
    values = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
    save_file({"w": values}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Checkpoint(tmp_path)["w"].read(rows), values[rows])


def test_memory_is_that_of_the_tensor_read(tmp_path):
    save_file({str(i): np.zeros((1 << 18,), np.float32) for i in range(8)}, tmp_path / "model.safetensors")
    tracemalloc.start()
    checkpoint = Checkpoint(tmp_path)
    for key in checkpoint:
        assert checkpoint[key].read().nbytes == 1 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * (1 << 20)


def test_nothing_stays_open(tiny_checkpoint):
    before = len(os.listdir("/proc/self/fd"))
    checkpoint = Checkpoint(tiny_checkpoint("llama", shards=2))
    checkpoint["model.norm.weight"].read()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("keep", [0, 5, 100, -1000, -1])
def test_a_truncated_file_is_named(tiny_checkpoint, tmp_path, keep):
    whole = (tiny_checkpoint("llama") / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:keep])
    with pytest.raises(UserError, match=f"{tmp_path}/model.safetensors is.* truncated"):
        Checkpoint(tmp_path)


def test_a_file_that_shrinks_later_is_noticed(tmp_path):
    save_file({"w": np.ones(100, np.float32)}, tmp_path / "model.safetensors")
    tensor = Checkpoint(tmp_path)["w"]
    os.truncate(tensor.path, tensor.start + 40)
    with pytest.raises(UserError, match="shorter"):
        tensor.read()
    tensor.path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        tensor.read()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 7]}, "key w has 7 bytes, but float32"),
        ({"dtype": "F77", "shape": [2], "data_offsets": [0, 8]}, "cannot read the header of key w"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "cannot read the header of key w"),
        ({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}, "cannot read the header of key w"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "cannot read the header of key w"),
        ({"dtype": "F32", "shape": [2]}, "cannot read the header of key w"),
        ([], "cannot read the header of key w"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}, "truncated"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, entry, message):
    with pytest.raises(UserError, match=message):
        read_header(write_raw(tmp_path / "model.safetensors", {"w": entry}, b"\0" * 8))


@pytest.mark.parametrize("header", [b"\xff\xff", b"{", b"[1]", b"7"])
def test_files_of_another_format_are_refused(tmp_path, header):
    with pytest.raises(UserError, match="not a safetensors file"):
        read_header(write_raw(tmp_path / "x.safetensors", header))


def test_text_where_a_header_should_be_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="not a safetensors file"):
        Checkpoint(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors: Is a directory"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"pickle only \({name}\).*\n.*save_pretrained"):
        Checkpoint(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="no weights in"):
        Checkpoint(tmp_path)


@pytest.fixture
def sharded(tiny_checkpoint, tmp_path) -> Path:
    return shutil.copytree(tiny_checkpoint("llama", shards=2), tmp_path / "sharded")


def edit_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"shard model-00002-of-00002.safetensors is missing"):
        Checkpoint(sharded)


def test_a_key_that_is_not_in_its_shard_is_named(sharded):
    weight_map = {key: "model-00001-of-00002.safetensors" for key in Checkpoint(sharded)}
    edit_index(sharded, weight_map)
    with pytest.raises(UserError, match=r"key .* is not in shard .*model-00001"):
        Checkpoint(sharded)


def test_a_key_in_two_shards_is_named(sharded):
    save_file({"model.norm.weight": np.ones(4)}, sharded / "more.safetensors")
    edit_index(
        sharded,
        dict(
            a="more.safetensors", b="model-00001-of-00002.safetensors", c="model-00002-of-00002.safetensors"
        ),
    )
    with pytest.raises(UserError, match=r"key model.norm.weight is both in"):
        Checkpoint(sharded)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "..", "", "sub/x.safetensors", "a\\b", "\0"]
)
def test_an_index_may_not_lead_out_of_the_folder(sharded, name):
    save_file({"w": np.ones(4)}, sharded.parent / "outside.safetensors")
    edit_index(sharded, {"w": name})
    with pytest.raises(UserError, match="not a file of that folder"):
        Checkpoint(sharded)


@pytest.mark.parametrize("weight_map", [None, [], {"w": 3}])
def test_an_index_without_a_map_is_refused(sharded, weight_map):
    edit_index(sharded, weight_map)
    with pytest.raises(UserError, match="has no weight_map"):
        Checkpoint(sharded)
