"""The tensors of one module of a checkpoint, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frontend.checkpoint import StoredTensor
from frontend.sources.settings import Settings

SCALES = ("float16", "bfloat16", "float32")


class Odd(Exception):
    """A tensor that does not fit the others of its module: which, and what was expected and found."""


@dataclass(frozen=True)
class Module:
    """Tensors by the last part of their keys, and what the configuration says of the whole model."""

    name: str
    tensors: Mapping[str, StoredTensor]
    settings: Settings | None

    def shape(self, suffix: str) -> tuple[int, int]:
        """That of a matrix that is not empty."""
        shape = self.tensors[suffix].shape
        if len(shape) != 2 or 0 in shape:
            raise Odd(f"{self.name}.{suffix}: expected a matrix, found shape {list(shape)}")
        return shape[0], shape[1]

    def expect(self, suffix: str, shape: tuple[int, ...], *types: str) -> None:
        """Odd unless the tensor has that shape and one of those types."""
        tensor = self.tensors[suffix]
        if tensor.shape != shape:
            raise Odd(f"{self.name}.{suffix}: expected shape {list(shape)}, found {list(tensor.shape)}")
        if tensor.dtype.name not in types:
            raise Odd(f"{self.name}.{suffix}: expected {' or '.join(types)}, found {tensor.dtype.name}")

    def group(self, inputs: int, groups: int, suffix: str) -> int:
        """How many inputs share a scale."""
        if inputs % groups:
            raise Odd(f"{self.name}.{suffix}: {groups} groups do not divide {inputs} inputs")
        return inputs // groups
