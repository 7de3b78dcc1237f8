"""The tensors of a checkpoint in safetensors files, read one at a time and without torch.

The format (github.com/huggingface/safetensors, README, "Format"): 8 bytes, the header's length as a
little-endian integer; the header, a JSON object {key: {dtype, shape, data_offsets}}; the data, which the
offsets count from.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from compiler.diagnostics import UserError, log, shown
from compiler.files import checkpoint_root, open_file, parse_json_object, read_json_object, reason
from frontend.folder import INDEX_FILE, SINGLE_FILE, note_adapter, without_weights

LONGEST_KEY = 300  # characters; published ones stay below 120

DTYPES: dict[str, npt.DTypeLike] = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class StoredTensor:
    """Where the data of one key lies, and as what: the `Source` of a parameter that is stored as it is."""

    key: str
    path: Path
    start: int  # bytes from the start of the file
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scheme: None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """The values, or those of some rows (first axis, step 1), in memory of their own."""
        if rows == slice(None):
            return self._read(0, self.shape)
        first, stop, _ = rows.indices(self.shape[0])
        return self._read(first * math.prod(self.shape[1:]), (max(stop - first, 0), *self.shape[1:]))

    def _read(self, first_item: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        count, offset = math.prod(shape), self.start + first_item * self.dtype.itemsize
        try:
            values = np.fromfile(self.path, self.dtype, count, offset=offset)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {reason(error)}") from error
        if values.size != count:
            raise UserError(f"{self.path} has become shorter while it was read")
        return values.reshape(shape)


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of a checkpoint folder by key. Opening reads the headers only; nothing stays open."""

    def __init__(self, folder: Path):
        self.folder = folder
        root = checkpoint_root(folder)
        self._tensors: dict[str, StoredTensor] = {}
        for path in _files(folder):
            for key, tensor in read_header(path, root).items():
                if key in self._tensors:
                    raise UserError(f"key {key} is both in {self._tensors[key].path.name} and in {path}")
                self._tensors[key] = tensor
        _check_index(folder, self._tensors)
        note_adapter(folder)

    def __getitem__(self, key: str) -> StoredTensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def read_header(path: Path, root: Path | None = None) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file; UserError when it is damaged, truncated or of another format.

    The reference implementation judges the header: that the tensors fill the file without holes and overlaps,
    and that their sizes are those of their shapes. It takes either of two entries with one key, which is
    refused here. `root` is as in `compiler.files.open_file`.
    """
    with open_file(path, root) as file:
        try:
            with safe_open(path, framework="numpy"):
                pass
            (length,) = struct.unpack("<Q", file.read(8))
            text = file.read(length)
        except SafetensorError as error:
            why = str(error).removeprefix("Error while deserializing header: ")[:150]
            raise UserError(f"{path} is damaged, truncated, or not a safetensors file: {why}") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from None
    header = parse_json_object(text, str(path))
    header.pop("__metadata__", None)
    return {key: _stored(path, key, entry, data_start=8 + length) for key, entry in header.items()}


def _stored(path: Path, key: str, entry: Any, data_start: int) -> StoredTensor:
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise UserError(f"{path} has a key that is no name of a parameter: {shown(key)}")
    if not isinstance(entry, dict):  # the reference implementation takes a list of the three values too
        raise UserError(f"{path}: the header describes key {key} by {shown(str(entry))}, not by an object")
    if entry["dtype"] not in DTYPES:
        raise UserError(f"{path}: key {key} is stored as {entry['dtype']}, which is not supported")
    dtype = np.dtype(DTYPES[entry["dtype"]])
    return StoredTensor(key, path, data_start + entry["data_offsets"][0], tuple(entry["shape"]), dtype)


def _files(folder: Path) -> list[Path]:
    """The safetensors files of the checkpoint; all must exist, so that a missing shard is found at once."""
    single, index = (os.path.lexists(folder / name) for name in (SINGLE_FILE, INDEX_FILE))
    if single and index:
        taken = "the first is taken, as transformers does"
        log.warning("%s has %s and %s: %s", folder, SINGLE_FILE, INDEX_FILE, taken)
    if single:
        return [folder / SINGLE_FILE]
    if index:
        return [_shard(folder, name) for name in sorted(set(_weight_map(folder).values()))]
    raise UserError(without_weights(folder))


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json_object(folder / INDEX_FILE, checkpoint_root(folder)).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{folder / INDEX_FILE} has no weight_map of keys to files")
    return weight_map


def _shard(folder: Path, name: str) -> Path:
    """The shard of that name; it must be a plain name, so that no index leads out of the folder."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 255:
        raise UserError(
            f"{folder / INDEX_FILE} names the shard '{shown(name)}', which is not a file of that folder"
        )
    if not os.path.lexists(folder / name):
        raise UserError(f"shard {name} is missing in {folder}, but {INDEX_FILE} names it")
    return folder / name


def _check_index(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Every key of the index must be in the shard that it names."""
    if os.path.lexists(folder / SINGLE_FILE):
        return
    for key, name in _weight_map(folder).items():
        if key not in tensors or tensors[key].path.name != name:
            raise UserError(
                f"key {shown(key)} is not in shard {folder / name}, where {INDEX_FILE} says it is"
            )
