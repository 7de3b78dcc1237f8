"""Parameters that hold all experts of a mixture, of which checkpoints have a tensor for each expert."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from compiler.weights.order import rows_in
from compiler.weights.part import Part
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, Weight, joined
from frontend.sources.packed import PackedLinear
from frontend.sources.source import Source


@dataclass(frozen=True)
class Place:
    """Where a tensor of one expert belongs: in a parameter [experts, outputs, inputs], of whose outputs it is
    the share number `share`.
    """

    parameter: str
    expert: int
    share: int


@dataclass(frozen=True)
class Stack:
    """A parameter [experts, outputs, inputs] by its experts' tensors, in order; codes have no first axis."""

    experts: tuple[tuple[Source, ...], ...]  # the shares of each, one behind the other along the outputs

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.experts[0]
        return len(self.experts), sum(share.shape[0] for share in first), *first[0].shape[1:]

    @property
    def scheme(self) -> Scheme | None:
        return self.experts[0][0].scheme

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self.experts[0][0].dtype

    @property
    def nbytes(self) -> int:
        return sum(source.nbytes for source in self.leaves())

    @property
    def key(self) -> str:
        return self.experts[0][0].key

    @property
    def path(self) -> Path:
        return self.experts[0][0].path

    def leaves(self, experts: slice = slice(None)) -> Iterator[Source]:
        return (share for expert in self.experts[experts] for share in expert)

    def read(self, rows: slice = slice(None)) -> Weight:
        """Some experts: floats [experts, outputs, inputs], or their codes one behind the other."""
        found = [joined([share.read() for share in expert]) for expert in self.experts[rows]]
        floats = [each for each in found if not isinstance(each, Quantized)]
        return np.stack(floats) if floats else joined(found)


def read_part(source: Source, part: Part) -> Weight:
    """What a name says of a parameter of experts: of every one, floats are stacked, and codes in a row."""
    values = source.read(part.experts)
    if not isinstance(values, Quantized):
        return np.ascontiguousarray(part.of(values))
    experts, outputs = source.shape[:2] if part.expert is None else (1, source.shape[1])
    rows = part.of(np.arange(experts * outputs).reshape(experts, outputs)).reshape(-1)
    return rows_in(values, rows)


def with_stacks(
    sources: Mapping[str, Source],
    place_of: Callable[[str], Place | None],
    folder: Path,
    left_out: Collection[str] = (),
) -> dict[str, Source]:
    """The sources with those of single experts gathered, by the names of the parameters that they make up;
    `left_out` are parameters of which something else is known to be wrong.

    UserError where some of a parameter are missing, or unlike the others.
    """
    found: dict[str, Source] = {}
    parts: dict[str, dict[tuple[int, int], Source]] = {}
    for key, source in sources.items():
        place = place_of(key)
        if place is None:
            found[key] = source
            continue
        taken = parts.setdefault(place.parameter, {})
        if taken.setdefault((place.expert, place.share), source) is not source:
            raise UserError(f"key {key} of {folder} is a part of {place.parameter} that another key is too")
    whole = {name: taken for name, taken in parts.items() if name not in left_out}
    return found | {name: stack_of(name, taken, folder) for name, taken in whole.items()}


def stack_of(name: str, parts: Mapping[tuple[int, int], Source], folder: Path) -> Stack:
    experts, shares = (1 + max(place[i] for place in parts) for i in (0, 1))
    for expert in range(experts):
        for share in range(shares):
            if (expert, share) not in parts:
                raise UserError(
                    f"{folder} lacks a part of expert {expert} of {name}, which its config.json needs"
                )
            check_order(parts[expert, share])
            check_alike(parts[0, share], parts[expert, share])
    for share in range(shares):
        check_stored_alike(parts[0, 0], parts[0, share])
    return Stack(tuple(tuple(parts[expert, share] for share in range(shares)) for expert in range(experts)))


def check_alike(first: Source, other: Source) -> None:
    """UserError unless two experts' tensors are of one shape, and stored in one way."""
    if other.shape != first.shape:
        raise UserError(
            f"key {other.key} in {other.path} has shape {list(other.shape)}, where that of another expert, "
            f"{first.key}, has {list(first.shape)}"
        )
    check_stored_alike(first, other)


def check_stored_alike(first: Source, other: Source) -> None:
    """UserError unless two tensors of one parameter are stored in one way."""
    ours, theirs = other.scheme or other.dtype, first.scheme or first.dtype
    if ours != theirs:
        raise UserError(
            f"key {other.key} in {other.path} is stored as {ours}, where {first.key}, of the same experts, "
            f"is stored as {theirs}"
        )


def check_order(source: Source) -> None:
    """UserError of codes whose inputs are in an order of their own: experts read what is routed to them as it
    is, and each would need another order.
    """
    order = source.order if isinstance(source, PackedLinear) else None
    if order is not None:
        raise UserError(
            f"key {order.key} in {order.path} puts an expert's inputs into an order of its own (desc_act)\n"
            "that is supported for linears, not for experts: take a checkpoint quantized without desc_act"
        )


def expert_number(key: str, pattern: str) -> int | None:
    """The number in a key that stands where the pattern, of the library's conversion table, has a star."""
    found = re.search(re.sub(r"\*", r"(\\d+)", pattern), key)
    return int(found[1]) if found is not None and found.groups() else None
