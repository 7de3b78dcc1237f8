"""Files in GGUF, llama.cpp's format: what they say of a model, and where their tensors lie.

The format (github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3), little-endian: "GGUF", the version
(u32), the numbers of tensors and of pairs (u64 each); of each pair its key, type (u32) and value; of each
tensor its name, number of axes (u32), their sizes from the innermost on (u64 each), type (u32) and offset
(u64) into the data, which begins at the next multiple of `general.alignment`. A text is its length (u64) and
its bytes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from compiler.diagnostics import UserError, shown
from compiler.files import open_file
from compiler.sizes import round_up

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
# What values there are, by the number of their type.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
LEAST_PAIR, LEAST_TENSOR = 13, 24  # bytes
MAX_AXES = 4


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in the file: `shape` with the innermost axis last, as in numpy; `start` is a byte's number."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int

    @property
    def block(self) -> tuple[int, int]:
        """Values and bytes of what is stored together."""
        return GGML_QUANT_SIZES[self.kind]

    @property
    def row_bytes(self) -> int:
        """Of the values along the innermost axis."""
        values, size = self.block
        return self.shape[-1] // values * size

    @property
    def nbytes(self) -> int:
        return prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True)
class GgufFile:
    """`metadata` has numbers, texts and arrays of numbers; of arrays of texts only their lengths."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])


def read_gguf(path: Path) -> GgufFile:
    """What stands before the data; UserError where that is not whole, or is of another kind."""
    with open_file(path) as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise UserError(f"{path} is empty") from None
        with data:
            return _Reader(path, data).read()


class _Reader:
    """One pass over the file, from the position `at` on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def read(self) -> GgufFile:
        tensors, pairs = self.counts()
        metadata = self.metadata(pairs)
        if not isinstance(metadata.get("general.architecture"), str):
            raise self.refusal("has no general.architecture, which says what the model is")
        if metadata.get("split.count", 1) != 1:
            parts = metadata["split.count"]
            raise self.refusal(f"is one of {parts} parts: join them with llama-gguf-split --merge FIRST NEW")
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.refusal(f"has general.alignment {alignment}, expected a number of bytes")
        return GgufFile(self.path, metadata, self.tensors(tensors, alignment))

    def counts(self) -> tuple[int, int]:
        if self.data[:4] != MAGIC:
            raise self.refusal("is no GGUF file: it does not begin with GGUF")
        self.at = 4
        version = self.number("I")
        if version & 0xFFFF == 0:
            raise self.refusal("is big-endian, which is not supported: convert it again as little-endian")
        if version not in VERSIONS:
            raise self.refusal(f"is of version {version} of GGUF, expected {' or '.join(map(str, VERSIONS))}")
        tensors, pairs = self.number("Q"), self.number("Q")
        if tensors * LEAST_TENSOR + pairs * LEAST_PAIR > len(self.data):
            raise self.truncated(f"{tensors} tensors and {pairs} pairs")
        return tensors, pairs

    def metadata(self, pairs: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(pairs):
            key = self.text("a key")
            if key in found:
                raise self.refusal(f"has the key {shown(key)} twice")
            found[key] = self.value(key, self.number("I"))
        return found

    def value(self, key: str, kind: int) -> Any:
        if kind == TEXT:
            return self.text(key)
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise self.refusal(f"has a value of type {kind} at {shown(key)}, which no GGUF knows")
        item, count = self.number("I"), self.number("Q")
        if item in SCALARS:
            return self.numbers(SCALARS[item], count)
        if item != TEXT:
            raise self.refusal(f"has an array of type {item} at {shown(key)}, which no model has")
        for _ in range(count):
            self.skip(self.number("Q"), key)
        return count

    def tensors(self, count: int, alignment: int) -> dict[str, GgufTensor]:
        entries = [self.entry() for _ in range(count)]
        base = round_up(self.at, alignment)
        found: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in entries:
            if name in found:
                raise self.refusal(f"has tensor {shown(name)} twice")
            found[name] = tensor = GgufTensor(name, self.kind(name, kind), shape, base + offset)
            if shape[-1] % tensor.block[0]:
                raise self.refusal(f"has tensor {shown(name)} in rows of {shape[-1]}: no whole blocks")
            if tensor.start + tensor.nbytes > len(self.data):
                raise self.truncated(f"tensor {shown(name)}, to byte {tensor.start + tensor.nbytes}")
        return found

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self.text("a tensor's name"), self.number("I")
        if not 1 <= axes <= MAX_AXES:
            raise self.refusal(f"has tensor {shown(name)} of {axes} axes, expected 1 to {MAX_AXES}")
        sizes = self.numbers("Q", axes)
        return name, sizes[::-1], self.number("I"), self.number("Q")

    def kind(self, name: str, number: int) -> GGMLQuantizationType:
        try:
            return GGMLQuantizationType(number)
        except ValueError:
            raise self.refusal(f"has tensor {shown(name)} of type {number}, which is not known") from None

    # ---- from the position on ----

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{code}") * count
        start = self.at
        self.skip(size, "its header")
        return struct.unpack_from(f"<{count}{code}", self.data, start)

    def text(self, what: str) -> str:
        size = self.number("Q")
        start = self.at
        self.skip(size, what)
        try:
            return self.data[start : self.at].decode()
        except UnicodeDecodeError:
            raise self.refusal(f"has a text at {shown(what)} that is not UTF-8") from None

    def skip(self, size: int, what: str) -> None:
        if self.at + size > len(self.data):
            raise self.truncated(shown(what))
        self.at += size

    def truncated(self, what: str) -> UserError:
        return self.refusal(f"ends before {what}: it has {len(self.data)} bytes, was it copied whole?")

    def refusal(self, problem: str) -> UserError:
        return UserError(f"{self.path} {problem}")
