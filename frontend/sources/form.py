"""In which form a checkpoint has most of its weights: by default its program has them in the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from frontend.sources.source import Source

T = TypeVar("T")

NAMES = {"float16": "f16"}  # of 16-bit types as flags have them; bf16 stands for all other types of floats


@dataclass(frozen=True)
class Form:
    """`bits` and `groups` of the weights that are codes already, those of the most weights first.

    `floats` are the bits for weights of blocks that are read as floats and were codes in the file; None where
    there are none, and floats stay as they are beside codes.
    """

    half: str  # the 16-bit type of the rest, bf16 or f16
    bits: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    floats: int | None = None


def form_of(sources: Iterable[Source]) -> Form:
    floats: dict[str, int] = {"bf16": 0}
    bits: dict[int, int] = {}
    groups: dict[int, int] = {}
    for source in sources:
        if source.scheme is not None:
            bits[source.scheme.bits] = bits.get(source.scheme.bits, 0) + source.nbytes
            groups[source.scheme.group] = groups.get(source.scheme.group, 0) + source.nbytes
        elif source.dtype is not None and source.dtype.itemsize > 1:
            name = NAMES.get(source.dtype.name, "bf16")
            floats[name] = floats.get(name, 0) + source.nbytes
    return Form(by_size(floats)[0], tuple(by_size(bits)), tuple(by_size(groups)))


def by_size(sizes: dict[T, int]) -> list[T]:
    return sorted(sizes, key=lambda kind: -sizes[kind])
