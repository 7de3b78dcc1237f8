"""Values that are nothing but moved, where rows of their tokens stay whole: which rows lie where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from compiler.ir.core import Op, Value
from dialects import llm
from passes.llm_to_tensor.steps import CannotMove, Steps
from passes.ranges import Range

LEAST_ROWS = 8  # that lie one behind the other, of what is stored in another order than it is computed in


class Movements(Protocol):
    def is_moved(self, value: Value) -> bool: ...

    def axis(self, value: Value) -> int | None: ...


@dataclass(frozen=True)
class Rows:
    """A value that is nothing but the rows of `source`, [.., rows, columns], seen along other axes."""

    source: Value
    steps: Steps

    @property
    def columns(self) -> int:
        columns: int = self.source.type.shape[-1]
        return columns

    def of_lanes(self, axis: int, part: Range, lanes: int) -> list[list[int]] | None:
        """The first of the rows that are side by side in each row of lanes of some items along an axis; None
        where rows of lanes are no such rows.
        """
        axes = [*self.steps.axes[axis]]
        tokens = self.steps.start + self.steps.offsets(axes)[part.start : part.stop]
        items = self.steps.offsets([i for i in range(len(self.steps.sizes)) if i not in axes])
        if part.size % lanes or items.size % self.columns:
            return None
        tokens, items = tokens.reshape(-1, lanes), items.reshape(-1, self.columns)
        rows, whole = np.arange(lanes) * self.columns, np.arange(self.columns)
        first = np.add.outer(tokens[:, 0], items[:, 0])
        is_whole = (tokens - tokens[:, :1] == rows).all() and (items - items[:, :1] == whole).all()
        return (first // self.columns).tolist() if is_whole else None

    @property
    def starts(self) -> list[int]:
        """The first of each of the rows that lie one behind the other, as they do in the source."""
        found = self.steps.start + self.steps.offsets(self.steps.lying[:-2])
        first: list[int] = (found // self.columns).tolist()
        return first

    @property
    def is_long(self) -> bool:
        """Whether many rows lie one behind the other as they do in the source."""
        *_, rows, columns = [0, 0, *self.steps.lying]
        sizes, strides = self.steps.sizes, self.steps.strides
        alone = len(sizes) > 1 and (sizes[columns], strides[columns]) == (self.columns, 1)
        return alone and strides[rows] == self.columns and sizes[rows] >= LEAST_ROWS


def rows_of(value: Value, places: Movements) -> Rows | None:
    """Of what is nothing but moved; None where it is joined, or its source has its tokens elsewhere."""
    try:
        found = _rows_of(value, places)
    except CannotMove:
        return None
    if found is None or places.axis(found.source) != found.source.type.rank - 2:
        return None
    return found if prod(found.source.type.shape[:-2]) == 1 else None


def placed_rows(value: Value, places: Movements) -> Rows | None:
    """What a result of a function is, if its rows are stored where they belong, for nothing else to read."""
    rows = rows_of(value, places)
    if rows is None or not rows.is_long or isinstance(rows.source.owner, llm.AllGatherOp):
        return None
    x: Value = value
    while x is not rows.source:
        if not x.has_one_use():
            return None
        assert isinstance(x.owner, Op)
        (x,) = x.owner.operands
    return rows if x.has_one_use() else None


def _rows_of(value: Value, places: Movements) -> Rows | None:
    op: Any = value.owner
    if not places.is_moved(value):
        return Rows(value, Steps.of(value.type.shape)) if isinstance(op, Op) else None
    before = None if isinstance(op, llm.ConcatOp) else _rows_of(op.operands[0], places)
    return before and Rows(before.source, SEEN[type(op)](op, before.steps))


SEEN: dict[type[Op], Callable[[Any, Steps], Steps]] = {
    llm.PermuteOp: lambda op, steps: steps.permute(op.order),
    llm.ReshapeOp: lambda op, steps: steps.reshape(op.shape),
    llm.SliceOp: lambda op, steps: steps.slice(op.axis, Range(op.start, op.stop)),
    llm.NarrowOp: lambda op, steps: steps,
}
