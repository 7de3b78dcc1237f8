"""Which key of a checkpoint holds which parameter of a transformers model.

The only file that touches the library's conversion tables (transformers.conversion_mapping and
core_model_loading, 5.x). They are not documented as public, an update may change them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.diagnostics import UserError
from compiler.frontend.checkpoint import Checkpoint, StoredTensor

FLOATS = ("bfloat16", "float16", "float32", "float64")
STALE_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")  # in old checkpoints; computed anew today


@dataclass(frozen=True)
class Expected:
    """What a model wants of a checkpoint: its parameters, and how published keys map to their names."""

    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str] = field(default_factory=dict)  # parameter -> the one it shares its values with
    rename: Callable[[str], str] = str  # checkpoint key -> parameter name
    ignored: tuple[str, ...] = STALE_BUFFERS  # patterns of keys that need no parameter


@dataclass(frozen=True)
class Weights:
    """The parameters of a model by name, each read from the checkpoint when asked for."""

    tensors: Mapping[str, StoredTensor]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that most parameters are stored in, counted in bytes."""
        sizes: dict[np.dtype[Any], int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype.name))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def same(self, one: str, other: str) -> bool:
        """Whether two parameters are the same stored tensor (tied)."""
        return self.tensors[one] == self.tensors[other]

    def read(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """The values as stored, or those of some rows (first axis), in memory of their own."""
        return self.tensors[name].read(rows)


def bind(checkpoint: Checkpoint, expected: Expected) -> Weights:
    """Find every parameter in the checkpoint; UserError names what is missing, extra or of another shape."""
    tensors: dict[str, StoredTensor] = {}
    extra = []
    for key in checkpoint:
        name = expected.rename(key)
        if name in tensors:
            raise UserError(f"key {key} of {checkpoint.folder} is parameter {name}, as another key is too")
        if name in expected.shapes:
            tensors[name] = checkpoint[key]
            _check(key, checkpoint[key], expected.shapes[name])
        elif not any(re.search(pattern, key) for pattern in expected.ignored):
            extra.append(key)
    for name, source in expected.tied.items():
        if name not in tensors and source in tensors:
            tensors[name] = tensors[source]
    missing = [name for name in expected.shapes if name not in tensors]
    _check_complete(checkpoint, missing, extra)
    return Weights({name: tensors[name] for name in expected.shapes})


def expected_of(model: Any) -> Expected:
    """What a transformers model (its parameters may be on meta) wants of a checkpoint."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ignored = tuple(model._keys_to_ignore_on_load_unexpected or ())
    tied = dict(model.all_tied_weights_keys)
    return Expected(shapes, tied, _renamer(model, shapes), STALE_BUFFERS + ignored)


def _renamer(model: Any, shapes: dict[str, tuple[int, ...]]) -> Callable[[str], str]:
    """The library's renaming of keys; it adds or removes the model's prefix where that names a parameter."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    table = get_model_conversion_mapping(model)
    renamings = [entry for entry in table if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in table if isinstance(entry, WeightConverter)]
    prefix = model.base_model_prefix

    def rename(key: str) -> str:
        name, pattern = rename_source_key(key, renamings, converters, prefix, shapes)
        if name not in shapes and key in shapes:
            return key
        if name in shapes and pattern is not None:
            raise UserError(
                f"key {key} is a part of parameter {name}: such checkpoints are not supported yet"
            )
        return str(name)

    return rename


def _check(key: str, tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise UserError(
            f"key {key} in {tensor.path} has shape {list(tensor.shape)}, by config.json it is {list(shape)}"
        )
    if tensor.dtype.name not in FLOATS:
        raise UserError(f"key {key} in {tensor.path} is stored as {tensor.dtype}, not {', '.join(FLOATS)}")


def _check_complete(checkpoint: Checkpoint, missing: list[str], extra: list[str]) -> None:
    if missing:
        raise UserError(f"{checkpoint.folder} lacks {_list(missing)}, which its config.json needs")
    if extra:
        raise UserError(f"{checkpoint.folder} holds {_list(extra)}, which no part of the model uses")


def _list(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ("key " if len(keys) == 1 else "keys ") + ", ".join(keys[:3]) + more
