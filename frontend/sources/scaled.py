"""Floats of 8 bits with a scale for each block of them, a row, or the whole: weights of 16 bits to us."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.weights.stored import Array, to_float32
from frontend.checkpoint import StoredTensor
from frontend.sources.module import SCALES, Module, Odd
from frontend.values import check_finite

BLOCK = (128, 128)  # of DeepSeek-V3 and those after it
FLOATS = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True)
class ScaledFloats:
    """value = stored * scale of its block, in float32; scales [row blocks, column blocks]."""

    stored: StoredTensor
    scales: StoredTensor
    block: tuple[int, int]
    scheme: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes + self.scales.nbytes

    @property
    def key(self) -> str:
        return self.stored.key

    @property
    def path(self) -> Path:
        return self.stored.path

    def read(self, rows: slice = slice(None)) -> Array:
        scales = self.scales.read()
        check_finite(self.scales, scales)
        first, stop, _ = rows.indices(self.shape[0])
        height, width = self.block
        values = to_float32(self.stored.read(rows))
        blocks = to_float32(scales).reshape(-(-self.shape[0] // height), -1)[np.arange(first, stop) // height]
        for block in range(blocks.shape[1]):
            values[:, block * width : (block + 1) * width] *= blocks[:, block : block + 1]
        return values


def fits(module: Module) -> bool:
    return module.tensors["weight"].dtype.name in FLOATS


def block_scaled(module: Module) -> ScaledFloats:
    """Of weight and weight_scale_inv, which despite its name is multiplied with."""
    (rows, columns), scales = module.shape("weight"), module.tensors["weight_scale_inv"]
    block = (module.settings.block if module.settings else None) or BLOCK
    blocks = (-(-rows // block[0]), -(-columns // block[1]))
    module.expect("weight_scale_inv", blocks, *SCALES)
    return ScaledFloats(module.tensors["weight"], scales, block)


def scaled(module: Module) -> ScaledFloats:
    """Of weight and weight_scale, one for all or one for each row."""
    (rows, columns), scales = module.shape("weight"), module.tensors["weight_scale"]
    if scales.shape not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        found = f"shape {list(scales.shape)}"
        raise Odd(f"{module.name}.weight_scale: expected one, or one for each of {rows} rows, found {found}")
    module.expect("weight_scale", scales.shape, *SCALES)
    return ScaledFloats(module.tensors["weight"], scales, (rows // max(1, *scales.shape, 1), columns))
