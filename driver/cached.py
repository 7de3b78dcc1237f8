"""What a cache keeps of a compile: weights in their form, and compiled modules.

Keys are made of everything that enters: the program and the libraries that compute, and what is read. So
another length finds all weights that it has tiles of the same form for, and a damaged or missing entry is
only made again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np

from compiler.bmodel import CommandStreams
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.versions import library, sources_digest
from compiler.weights.stored import Array, Quantized, Weight
from dialects.builtin import ModuleOp
from dialects.weights import Joined, Packed, expert_name, view_of_name
from driver.blob import Make, Materializer, Piece
from driver.cache import Cache, key_of
from driver.pipelines import Effort, Efforts
from passes.options import ByFunction

COMPUTING = ("numpy", "ml_dtypes")
END = "\n"


@cache
def made_by() -> str:
    """The program and what it computes with."""
    return " ".join([sources_digest(), platform.machine(), *map(library, COMPUTING)])


# ---- weights ----


@dataclass
class CachedWeights:
    """Pieces from a cache, or made and put there. A checkpoint's tensor is hashed once."""

    cache: Cache
    _digests: dict[str, bytes] = field(default_factory=dict)
    make: Make | None = None  # what is not there; None for here and now

    def pieces(self, pieces: Sequence[Piece], materializer: Materializer) -> list[Array]:
        """As `Materializer.pieces`, of what is worth it."""
        sources = [piece.source for piece in pieces]
        if not all(isinstance(source, Packed | Joined) for source in sources):
            return list(materializer.pieces(sources))
        key = key_of("weights", made_by(), repr(sources), *self.read_by(sources, materializer))
        sizes = [piece.size for piece in pieces]
        found = self.cache.get(key)
        if found is not None and len(found) == sum(sizes):
            return list(cut(np.frombuffer(found, np.uint8), sizes))
        made = self.make(pieces, materializer) if self.make else list(materializer.pieces(sources))
        self.cache.put(key, map(bytes_in, made))
        return made

    def read_by(self, sources: Sequence[Any], materializer: Materializer) -> Iterator[bytes]:
        """Of everything that these sources are made of: its content."""
        for name in dict.fromkeys(name for source in sources for name in tensors_of(source)):
            yield self.digest(name, materializer)
            importance = materializer.importance(name)
            yield b"" if importance is None else digest_of(importance)

    def digest(self, name: str, materializer: Materializer) -> bytes:
        full_name = materializer.full_name(name)
        if full_name not in self._digests:
            self._digests[full_name] = digest_of(materializer.read(name))
        return self._digests[full_name]


def tensors_of(source: Packed | Joined) -> Iterator[str]:
    experts = source.experts if isinstance(source, Packed) else 0
    for name in source.names:
        for each in [expert_name(name, expert) for expert in range(experts)] or [name]:
            yield view_of_name(each).tensor


def digest_of(weight: Weight) -> bytes:
    """sha256 of a tensor as it is stored, with its types and shapes."""
    if isinstance(weight, Quantized):
        arrays = [weight.codes, weight.scales, weight.zeros, weight.minimums]
        told = str(weight.scheme)
    else:
        arrays, told = [weight], ""
    digest = hashlib.sha256(told.encode())
    for array in arrays:
        if array is not None:
            digest.update(f" {array.dtype} {array.shape} ".encode())
            digest.update(bytes_in(array))
    return digest.digest()


def bytes_in(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def cut(data: Array, sizes: Sequence[int]) -> Iterator[Array]:
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size


# ---- programs ----


@dataclass(frozen=True)
class Compiled:
    """A module of which instructions are encoded, and how it was tuned."""

    module: ModuleOp
    streams: Mapping[Function, CommandStreams]
    efforts: Efforts | None


def program_key(module: ModuleOp, *settings: object) -> str:
    return key_of("program", made_by(), print_module(module), *map(repr, settings))


def get_program(store: Cache, key: str) -> Compiled | None:
    found = store.get(key)
    if found is None:
        return None
    data = bytes(found)
    head, _, rest = data.partition(END.encode())
    stated = json.loads(head)
    module = parse_module(rest[: stated["text"]].decode(), f"{store.folder}/{key}")
    assert isinstance(module, ModuleOp)
    sizes = [size for each in stated["streams"] for size in each[3:]]
    parts = cut(np.frombuffer(rest, np.uint8)[stated["text"] :], sizes)
    streams = {}
    for name, tiu_count, dma_count, *_ in stated["streams"]:
        tiu, dma = next(parts).tobytes(), next(parts).tobytes()
        streams[module.function(name)] = CommandStreams(tiu, tiu_count, dma, dma_count)
    return Compiled(module, streams, efforts_of(stated["efforts"]))


def put_program(store: Cache, key: str, made: Compiled) -> None:
    text = print_module(made.module).encode()
    streams = [
        (function.sym_name, each.tiu_count, each.dma_count, len(each.tiu), len(each.dma))
        for function, each in made.streams.items()
    ]
    stated = {"text": len(text), "streams": streams, "efforts": efforts_as(made.efforts)}
    head = json.dumps(stated) + END
    data = [part for each in made.streams.values() for part in (each.tiu, each.dma)]
    store.put(key, [head.encode(), text, *data])


def efforts_as(efforts: Efforts | None) -> Any:
    if efforts is None:
        return None
    return [asdict(efforts.usual), [(name, asdict(value)) for name, value in efforts.named]]


def efforts_of(stated: Any) -> Efforts | None:
    if stated is None:
        return None
    usual, named = stated
    return ByFunction(Effort(**usual), tuple((name, Effort(**value)) for name, value in named))
