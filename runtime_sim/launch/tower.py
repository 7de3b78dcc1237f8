"""The net `vit` as chat programs call it: pictures as their processor cut them in, rows of the embedding out.

There are two kinds, told apart by the first input. A grid tower takes one picture of any grid in a call, its
patches in rows, with their places and who may see whom; rows beyond the picture are masked. A tile tower
takes one tile, an image of a fixed size, in a call. Source: Qwen2_5_VL and InternVL3 of Sophgo's LLM-TPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from runtime_sim.arrays import Array
from runtime_sim.launch.grids import Grid
from runtime_sim.launch.runtime import CallableNet, Runtime

HIDDEN = -10000.0  # the additive mask of what is not visible
GRID_RANK, TILE_RANK = 2, 4  # of the first input
WINDOWED = 5  # inputs of a grid tower that has windows


@dataclass(frozen=True)
class Picture:
    """What a processor made of one picture in float32, and its place in a prompt."""

    pixels: Array  # [patches, values], or [tiles, channels, rows, columns]
    grid: tuple[int, int] = (0, 0)  # rows and columns of patches; of none where there are tiles
    start: int = 0  # its first token


@dataclass(frozen=True)
class Tower(ABC):
    """What a session needs of the net."""

    runtime: Runtime
    net: CallableNet

    @abstractmethod
    def token_grid(self, picture: Picture) -> tuple[int, int]:
        """Rows and columns of tokens that it is; UserError when the net cannot take it."""

    @abstractmethod
    def most(self, tokens: int) -> int:
        """The most patches, or tiles, of a picture that is to have so many tokens; at least one's worth."""

    @abstractmethod
    def parts(self, picture: Picture) -> list[Picture]:
        """What the net takes of it in each call."""

    @abstractmethod
    def give(self, part: Picture) -> None:
        """Write all inputs of a call."""

    def features(self, picture: Picture) -> Array:
        """The rows of the embedding that stand for it, as bytes."""
        return np.concatenate([self._part(part) for part in self.parts(picture)])

    def _part(self, part: Picture) -> Array:
        self.give(part)
        self.runtime.launch(self.net)
        output, rows = self.net.outputs[0], prod(self.token_grid(part))
        return output.data[: rows * output.info.size // output.info.shape[0]].copy()


@dataclass(frozen=True)
class TileTower(Tower):
    @property
    def tile_tokens(self) -> int:
        return int(self.net.outputs[0].info.shape[0])

    @property
    def tile(self) -> tuple[int, ...]:
        """[channels, rows, columns]."""
        return tuple(self.net.inputs[0].info.shape[1:])

    def token_grid(self, picture: Picture) -> tuple[int, int]:
        """One row: positions of its tokens count on as those of text do."""
        if picture.pixels.shape[1:] != self.tile:
            found = list(picture.pixels.shape[1:])
            raise UserError(f"tiles of a picture are {found}, net {self.net.name} takes {list(self.tile)}")
        return 1, len(picture.pixels) * self.tile_tokens

    def most(self, tokens: int) -> int:
        return max(1, tokens // self.tile_tokens)

    def parts(self, picture: Picture) -> list[Picture]:
        return [Picture(pixels[None]) for pixels in picture.pixels]

    def give(self, part: Picture) -> None:
        self.net.inputs[0].array[...] = part.pixels


@dataclass(frozen=True)
class GridTower(Tower):
    window: int | None  # cells that are the side of one

    @property
    def patches(self) -> int:
        """As many as it takes."""
        return int(self.net.inputs[0].info.shape[0])

    @property
    def merge(self) -> int:
        """Patches that are the side of a cell."""
        return isqrt(self.patches // int(self.net.outputs[0].info.shape[0]))

    def grid(self, picture: Picture) -> Grid:
        return Grid(*picture.grid, self.merge, self.window)

    def token_grid(self, picture: Picture) -> tuple[int, int]:
        rows, columns = picture.grid
        wanted = (rows * columns, *self.net.inputs[0].info.shape[1:])
        if picture.pixels.shape != wanted or rows % self.merge or columns % self.merge:
            found = f"{list(picture.pixels.shape)} values in {rows} x {columns}"
            raise UserError(f"patches of a picture are {found}, net {self.net.name} takes {list(wanted)}")
        if rows * columns > self.patches:
            raise UserError(
                f"the picture has {rows} x {columns} patches, {rows * columns}, and net {self.net.name} "
                f"takes {self.patches}: make it smaller, or compile with a larger --max_pixels"
            )
        return rows // self.merge, columns // self.merge

    def most(self, tokens: int) -> int:
        return min(self.patches, max(1, tokens) * self.merge**2)

    def parts(self, picture: Picture) -> list[Picture]:
        return [picture]

    def give(self, part: Picture) -> None:
        """Rows behind the picture are zeros that nobody sees, and see nothing."""
        grid = self.grid(part)
        pixels, positions, *masks = (buffer.array for buffer in self.net.inputs)
        for array in (pixels, positions):
            array[...] = 0
        pixels[: grid.patches] = part.pixels[grid.patch_order]
        positions[: grid.patches] = grid.positions
        if self.window is not None:
            *masks, reverse = masks
            reverse[...] = np.arange(len(reverse))
            reverse[: len(grid.order)] = grid.reverse
        for mask, seen in zip(masks, (np.array(True), grid.same_window), strict=False):
            mask[...] = HIDDEN
            mask[0, 0, : grid.patches, : grid.patches][np.broadcast_to(seen, (grid.patches,) * 2)] = 0


def tower_of(runtime: Runtime, net: CallableNet, config: Mapping[str, Any], where: str) -> Tower:
    """The tower of a file; `config` is the model's config.json, which messages call `where`."""
    if len(net.inputs[0].info.shape) == TILE_RANK:
        return TileTower(runtime, net)
    window = window_cells(config, where) if len(net.inputs) == WINDOWED else None
    return GridTower(runtime, net, window)


def window_cells(config: Mapping[str, Any], where: str) -> int:
    """Cells that are the side of a window."""
    settings = config.get("vision_config")
    settings = settings if isinstance(settings, Mapping) else {}
    sizes = [settings.get(key) for key in ("window_size", "patch_size", "spatial_merge_size")]
    pixels, *parts = [size if type(size) is int and size > 0 else 0 for size in sizes]
    if 0 in parts or not (cells := pixels // parts[0] // parts[1]):
        raise UserError(
            f"{where}: vision_config needs window_size, patch_size and spatial_merge_size, found {sizes}: "
            "without them it cannot be told which patches see each other"
        )
    return cells
