"""Patches of a picture: the order in which a tower takes them, and the positions that rope reads.

A processor cuts a picture into rows and columns of patches. Some squares of them, the cells, make one token
each: it gives the patches cell by cell, and the cells row by row. Source: Qwen2.5-VL (arXiv 2502.13923),
sections 2.1.1 and 2.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from runtime_sim.arrays import Array

Box = tuple[int, int, int]  # of a picture in a prompt: its first token, its rows and its columns of tokens
STREAMS = 3  # of positions in time, in height, in width


@dataclass(frozen=True)
class Grid:
    """A picture of rows x columns patches, `merge` of which are the side of a cell.

    With a `window`, the cells that are the side of one, cells are taken window by window, each row by row.
    """

    rows: int
    columns: int
    merge: int
    window: int | None = None

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    @property
    def cell_rows(self) -> int:
        return self.rows // self.merge

    @property
    def cell_columns(self) -> int:
        return self.columns // self.merge

    @cached_property
    def cells(self) -> Array:
        """[cells, 2]: row and column of each, row by row."""
        return _places(self.cell_rows, self.cell_columns)

    @cached_property
    def windows(self) -> Array:
        """[cells, 2]: row and column of the window of each."""
        return self.cells // self.window if self.window else np.zeros_like(self.cells)

    @cached_property
    def order(self) -> Array:
        """[cells]: which cell is the first that is taken, the second, ..."""
        return np.lexsort((*self.cells.T[::-1], *self.windows.T[::-1]))

    @property
    def patch_order(self) -> Array:
        """[patches]: the same of patches, which stay together by cell."""
        size = self.merge**2
        return (self.order[:, None] * size + np.arange(size)).reshape(-1)

    @property
    def reverse(self) -> Array:
        """[cells]: when each is taken."""
        return np.argsort(self.order)

    @property
    def positions(self) -> Array:
        """[patches, 2]: row and column of each patch, in the order in which they are taken."""
        within = _places(self.merge, self.merge)
        return (self.cells[self.order][:, None] * self.merge + within).reshape(-1, 2)

    @property
    def same_window(self) -> Array:
        """[patches, patches] bool: whether two are in one window, in the order in which they are taken."""
        windows = self.windows[self.order].repeat(self.merge**2, axis=0)
        return np.asarray((windows[:, None] == windows).all(-1))


def _places(rows: int, columns: int) -> Array:
    """[rows * columns, 2]: row and column, row by row."""
    return np.stack(np.divmod(np.arange(rows * columns), columns), axis=-1)


def prompt_positions(count: int, boxes: Sequence[Box]) -> Array:
    """[STREAMS, count]: positions of a prompt's tokens, some of which are those of pictures.

    A picture is one moment, and its tokens count rows and columns from the next free position; text goes on
    after the largest of them.
    """
    ids = np.zeros((STREAMS, count), int)
    done = position = 0
    for start, rows, columns in sorted(boxes):
        position = _count_text(ids[:, done:start], position)
        done = start + rows * columns
        ids[0, start:done] = position
        ids[1:, start:done] = position + _places(rows, columns).T
        position += max(rows, columns)
    _count_text(ids[:, done:], position)
    return ids


def _count_text(ids: Array, position: int) -> int:
    """Number tokens of text from a position on; the position after them."""
    ids[...] = position + np.arange(ids.shape[1])
    return position + int(ids.shape[1])
