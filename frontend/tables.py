"""Constants of a traced layer: numbers, and tables that have one row per position.

Whatever a model makes of positions runs for real while it is traced, so the graph of a prefill holds the
rotary values of all its positions and that of a decode step those of one. Constants that differ in one axis
in this way are rows of one table; constants that are alike are what they are; all else is refused. Where
positions come in several streams, these run through the same numbers, and one more run tells them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.diagnostics import UserError
from dialects.llm import Streams
from frontend.graph import Constant, Node
from frontend.streams import streams_of

# Rotary values of one position differ between runs of different lengths by rounding of vector units only.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class TableUse:
    """A constant as an operand: a table by name, its rows picked by position or taken as they are."""

    name: str
    by_position: bool
    streams: Streams | None = None  # of positions, where there are several


@dataclass(frozen=True)
class Positions:
    """Whole numbers as an operand: the positions of the tokens, counted from `first` on."""

    first: int
    count: int  # of positions that there are


Use = TableUse | Positions | float


class Tables:
    """The distinct tables of a model, [positions, width] or of any shape, by name: cos, sin, cos_1, ..."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[str, str] = {}
        self._taken: Counter[str] = Counter()

    def add(self, array: np.ndarray, by_position: bool, kind: str = "") -> str:
        """The name of a table of these numbers, made of what they are; that of an earlier one like it."""
        digest = Constant(array).digest
        if digest not in self._names:
            kind = kind or (angle_function(array) if by_position else "table")
            self._names[digest] = f"{kind}_{self._taken[kind]}" if self._taken[kind] else kind
            self._taken[kind] += 1
            self.arrays[self._names[digest]] = array
        return self._names[digest]

    def uses(self, runs: Sequence[list[Node]], position: int) -> list[Use]:
        """What the constants of one layer are, in the order in which they appear in each of its runs.

        `runs` are the nodes of a prefill, of a decode step at `position`, of a run over all positions and of
        one over few; and with several streams, of one at `told_apart`.
        """
        found = [[node for node in run if node.name == "constant"] for run in runs]
        if len({len(constants) for constants in found}) != 1:
            raise UserError("cannot import the model: it computes other constants in decode than in prefill")
        return [self._use(nodes, position) for nodes in zip(*found, strict=True)]

    def _use(self, nodes: Sequence[Node], position: int) -> Use:
        path = nodes[0].path
        prefill, decode, whole, short, *apart = (node.args[0].data for node in nodes)
        if all(same(prefill, other) for other in (decode, whole, short, *apart)):
            return self._fixed(prefill, path)
        if prefill.dtype.kind == "i" and not apart:
            if counted := counted_from(whole, ((prefill, 0), (decode, position))):
                return counted
        axis = position_axis(prefill, decode, whole, short)
        if axis is None or prefill.dtype.kind != "f":
            raise UserError(
                f"cannot import the model: a constant of shape {list(prefill.shape)} depends on the number "
                f"of tokens{' or on their positions' * len(apart)}, in {path}"
            )
        table = whole.reshape(whole.shape[axis], -1).astype(np.float32)
        for run, first in ((prefill, 0), (decode, position), (short, 0)):
            check_rows(table[first:], run, path)
        streams = streams_of(apart[0].reshape(-1, table.shape[1]), path) if apart else None
        return TableUse(self.add(table, by_position=True), True, streams)

    def _fixed(self, array: np.ndarray, path: str) -> Use:
        if array.size == 1:
            return float(array.reshape(())[()])
        if array.dtype.kind != "f":
            raise UserError(f"cannot import the model: it uses a constant {array.dtype} array, in {path}")
        return TableUse(self.add(array.astype(np.float32), by_position=False), by_position=False)


def counted_from(whole: np.ndarray, runs: Sequence[tuple[np.ndarray, int]]) -> Positions | None:
    """The positions of each run, whose first token is at the number beside it; None if they are others."""
    first = int(whole.reshape(-1)[0])
    for run, start in ((whole, 0), *runs):
        if run.size != run.shape[-1] or not np.array_equal(
            run.reshape(-1), np.arange(run.size) + first + start
        ):
            return None
    return Positions(first, whole.size)


def angle_function(rows: np.ndarray) -> str:
    """What to call a table with a row for each position, by position 0, where all angles are 0."""
    first = rows[0]
    if not first.any():
        return "sin"
    return "cos" if (first == first[0]).all() else "table"  # some models scale both by one number


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b))


def position_axis(prefill: np.ndarray, decode: np.ndarray, *others: np.ndarray) -> int | None:
    """The only axis that differs between the runs, if it is 1 in decode and only 1s come before it."""
    shapes = (prefill.shape, decode.shape, *(run.shape for run in others))
    if len({len(shape) for shape in shapes}) != 1:
        return None
    axes = [axis for axis, lengths in enumerate(zip(*shapes, strict=True)) if len(set(lengths)) > 1]
    if len(axes) != 1 or decode.shape[axes[0]] != 1 or any(n != 1 for n in decode.shape[: axes[0]]):
        return None
    return axes[0]


def check_rows(table: np.ndarray, run: np.ndarray, path: str) -> None:
    """The rows of a run must be those of the table, or it would depend on the length of the input."""
    got = run.reshape(-1, table.shape[1])
    if not np.allclose(got, table[: len(got)], rtol=TOLERANCE, atol=TOLERANCE):
        raise UserError(
            "cannot import the model: its position tables depend on the length of the input, which "
            f"fixed tables cannot express, in {path}; a shorter sequence length may avoid it"
        )
