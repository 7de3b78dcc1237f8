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
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from compiler.diagnostics import UserError
from frontend.checkpoint import Checkpoint, read_header


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
    with pytest.raises(UserError, match=f"{tmp_path}/model.safetensors is damaged, truncated"):
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


def entry(start: int, stop: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HEADERS = {
    "right": ({"w": entry(0, 8), "empty": entry(8, 8, (0, 3)), "__metadata__": {"format": "pt"}}, 8),
    "size": ({"w": entry(0, 7)}, 7),
    "unknown type": ({"w": entry(0, 8, dtype="F77")}, 8),
    "negative": ({"w": entry(0, 8, (-2,))}, 8),
    "no list": ({"w": entry(0, 8, 2)}, 8),
    "fraction": ({"w": entry(0, 8, (2.0,))}, 8),
    "before the data": ({"w": entry(-8, 0)}, 8),
    "nothing said": ({"w": {}}, 8),
    "no object": ({"w": []}, 8),
    "overflow": ({"w": entry(0, 8, (1 << 62, 1 << 62))}, 8),
    "hole at the start": ({"w": entry(8, 16)}, 16),
    "hole inside": ({"w": entry(0, 8), "v": entry(16, 24)}, 24),
    "overlap": ({"w": entry(0, 8), "v": entry(4, 12)}, 12),
    "data left over": ({"w": entry(0, 8)}, 9),
    "data too short": ({"w": entry(0, 8)}, 7),
    "metadata of numbers": ({"w": entry(0, 8), "__metadata__": {"format": 1}}, 8),
    "no text": (b"\xff\xff", 0),
    "no JSON": (b"{", 0),
    "a list": (b"[1]", 0),
    "deep": (b"[" * 100_000, 0),
    "NaN": (b'{"w": NaN}', 0),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_are_judged_as_the_reference_implementation_does(tmp_path, case):
    header, size = HEADERS[case]
    path = write_raw(tmp_path / "x.safetensors", header, b"\0" * size)
    try:
        accepted = load_file(path)
    except SafetensorError:
        with pytest.raises(
            UserError, match=r"x.safetensors is damaged, truncated, or not a safetensors file: \w"
        ):
            read_header(path)
    else:
        assert {key: tensor.shape for key, tensor in read_header(path).items()} == {
            key: array.shape for key, array in accepted.items()
        }
    assert (case == "right") == ("accepted" in locals())


@pytest.mark.parametrize("change", [-1, 1, 1 << 40])
def test_a_length_of_the_header_that_is_wrong_is_refused(tmp_path, change):
    path = write_raw(tmp_path / "x.safetensors", json.dumps({"w": entry(0, 8)}).encode() + b"  ", b"\0" * 8)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    path.write_bytes(struct.pack("<Q", length + change) + path.read_bytes()[8:])
    with pytest.raises(UserError, match="is damaged, truncated"):
        read_header(path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    one, other = (json.dumps(entry(0, 8, dtype=dtype)) for dtype in ("F32", "I32"))
    header = f'{{"w": {one}, "w": {other}}}'.encode()
    with pytest.raises(UserError, match="the key 'w' stands there twice"):
        read_header(write_raw(tmp_path / "x.safetensors", header, b"\0" * 8))


def test_a_list_in_place_of_the_description_of_a_key_is_refused(tmp_path):
    """The reference implementation reads it, field by field."""
    path = write_raw(tmp_path / "model.safetensors", {"w": ["F32", [1], [0, 4]]}, bytes(4))
    with pytest.raises(UserError, match=r"the header describes key w by \['F32', \[1\], \[0, 4\]\], not by an object"):
        read_header(path)


@pytest.mark.parametrize("key", ["a\nb", "\x1b[31mred", "w" * 1000])
def test_keys_that_would_spoil_a_message_are_refused(tmp_path, key):
    with pytest.raises(UserError, match="a key that is no name of a parameter") as caught:
        read_header(write_raw(tmp_path / "x.safetensors", {key: entry(0, 8)}, b"\0" * 8))
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_types_that_are_no_weights_of_a_model_are_named(tmp_path):
    with pytest.raises(UserError, match="key w is stored as C64, which is not supported"):
        read_header(write_raw(tmp_path / "x.safetensors", {"w": entry(0, 8, (1,), "C64")}, b"\0" * 8))


def test_a_pipe_or_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(UserError, match="it is not a regular file"):
        Checkpoint(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(save(tmp_path / "elsewhere.safetensors"))
    with pytest.raises(UserError, match="is a link out of the checkpoint"):
        Checkpoint(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors"):
        Checkpoint(folder)


def test_a_snapshot_of_a_hubs_cache_is_read(tmp_path):
    snapshot, blobs = tmp_path / "models--org--m" / "snapshots" / "0f", tmp_path / "models--org--m" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save(blobs / "1234")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert list(Checkpoint(snapshot)) == ["w"]


def save(path: Path) -> Path:
    save_file({"w": np.ones(4)}, path)
    return path


def test_text_where_a_header_should_be_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="not a safetensors file"):
        Checkpoint(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors: it is not a regular file"):
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


def test_a_single_file_beside_shards_is_taken_with_a_note(sharded, caplog):
    save(sharded / "model.safetensors")
    assert list(Checkpoint(sharded)) == ["w"]
    assert "has model.safetensors and model.safetensors.index.json: the first is taken" in caplog.text


@pytest.mark.parametrize("weight_map", [None, [], {"w": 3}])
def test_an_index_without_a_map_is_refused(sharded, weight_map):
    edit_index(sharded, weight_map)
    with pytest.raises(UserError, match="has no weight_map"):
        Checkpoint(sharded)
