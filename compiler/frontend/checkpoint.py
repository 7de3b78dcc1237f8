"""The tensors of a checkpoint in safetensors files, read one at a time and without torch.

The format (github.com/huggingface/safetensors, README, "Format"): 8 bytes, the header's length as a
little-endian integer; the header, a JSON object {key: {dtype, shape, data_offsets}}; the data, which the
offsets count from.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from compiler.diagnostics import UserError
from compiler.frontend.config import read_json_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
HEADER_LIMIT = 100_000_000  # bytes; the reference implementation's own limit

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
    """Where the data of one key lies, and as what."""

    path: Path
    start: int  # bytes from the start of the file
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

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
            raise UserError(f"cannot read {self.path}: {error.strerror}") from error
        if values.size != count:
            raise UserError(f"{self.path} has become shorter while it was read")
        return values.reshape(shape)


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of a checkpoint folder by key. Opening reads the headers only; nothing stays open."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._tensors: dict[str, StoredTensor] = {}
        for path in _files(folder):
            for key, tensor in read_header(path).items():
                if key in self._tensors:
                    raise UserError(f"key {key} is both in {self._tensors[key].path.name} and in {path}")
                self._tensors[key] = tensor
        _check_index(folder, self._tensors)

    def __getitem__(self, key: str) -> StoredTensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file; UserError when it is truncated or no such file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else HEADER_LIMIT + 1
            text = file.read(length) if length <= HEADER_LIMIT else b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if length > HEADER_LIMIT:
        raise UserError(f"{path} is not a safetensors file, or truncated: it has no header")
    if len(text) < length:
        raise UserError(f"{path} is truncated: its header has {length} bytes, the file {size}")
    tensors = dict(_parse_header(path, text, data_start=8 + length))
    end = max((tensor.start + tensor.nbytes for tensor in tensors.values()), default=0)
    if end > size:
        raise UserError(f"{path} is truncated: its tensors end at byte {end}, the file at {size}")
    return tensors


def _parse_header(path: Path, text: bytes, data_start: int) -> Iterator[tuple[str, StoredTensor]]:
    try:
        header = json.loads(text)
        entries = [(key, entry) for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{path} is not a safetensors file: its header is not a JSON object") from None
    for key, entry in entries:
        try:
            shape = tuple(map(_natural, entry["shape"]))
            start, stop = map(_natural, entry["data_offsets"])
            dtype = np.dtype(DTYPES[entry["dtype"]])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: cannot read the header of key {key}: {str(entry)[:100]}") from None
        tensor = StoredTensor(path, data_start + start, shape, dtype)
        if tensor.nbytes != stop - start:
            raise UserError(
                f"{path}: key {key} has {stop - start} bytes, but {dtype} {list(shape)} needs {tensor.nbytes}"
            )
        yield key, tensor


def _natural(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _files(folder: Path) -> list[Path]:
    """The safetensors files of the checkpoint; all must exist, so that a missing shard is found at once."""
    if (folder / SINGLE_FILE).exists():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).exists():
        return [_shard(folder, name) for name in sorted(set(_weight_map(folder).values()))]
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder} has its weights as pickle only ({pickles[0]}), which can run code when it is read\n"
            "write them as safetensors first: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
        )
    raise UserError(f"no weights in {folder}: neither {SINGLE_FILE} nor {INDEX_FILE}")


def _weight_map(folder: Path) -> dict[str, Any]:
    weight_map = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{folder / INDEX_FILE} has no weight_map of keys to files")
    return weight_map


def _shard(folder: Path, name: str) -> Path:
    """The shard of that name; it must be a plain name, so that no index leads out of the folder."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"{folder / INDEX_FILE} names the shard '{name}', which is not a file of that folder")
    if not (folder / name).is_file():
        raise UserError(f"shard {name} is missing in {folder}, but {INDEX_FILE} names it")
    return folder / name


def _check_index(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Every key of the index must be in the shard that it names."""
    if (folder / SINGLE_FILE).exists():
        return
    for key, name in _weight_map(folder).items():
        if key not in tensors or tensors[key].path.name != name:
            raise UserError(f"key {key} is not in shard {folder / name}, where {INDEX_FILE} says it is")
