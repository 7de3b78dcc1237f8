"""Tensors of checkpoints in another layout by the keys of the native model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from compiler.aliases import ALIASES, native_keys
from frontend.checkpoint import StoredTensor


def native_tensors(tensors: Mapping[str, StoredTensor], model_type: str) -> Mapping[str, StoredTensor]:
    """The tensors by the keys of the native model; `model_type` is that of the checkpoint."""
    alias = ALIASES.get(model_type)
    if alias is None:
        return tensors
    found: dict[str, StoredTensor] = {}
    for key, tensor in tensors.items():
        names = native_keys(alias, key)
        found |= dict(zip(names, parted(tensor, len(names)), strict=True))
    return found


def parted(tensor: StoredTensor, count: int) -> list[StoredTensor]:
    """Equal blocks of its rows, which lie one behind the other."""
    rows = tensor.shape[0] // count if tensor.shape else 1
    if count == 1 or rows * count != tensor.shape[0]:
        return [tensor] * count  # in the second case of a shape that no parameter has
    shape, size = (rows, *tensor.shape[1:]), tensor.nbytes // count
    return [replace(tensor, start=tensor.start + i * size, shape=shape) for i in range(count)]
