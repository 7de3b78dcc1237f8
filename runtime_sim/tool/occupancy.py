"""Which bytes of local memory hold something that is still needed, and from when to when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array
from runtime_sim.check.ranges import Box, accesses


class Piece(NamedTuple):
    """Bytes [start, end) of the lanes, held from the instruction that writes them to their last reader.

    Instructions are given by their place in the order that `pieces` got them in.
    """

    start: int
    end: int
    first: int
    last: int


def pieces(instructions: Sequence[Instruction], spec: ChipSpec) -> list[Piece]:
    """What local memory holds while the instructions run, in an order that their waits permit.

    Lanes are not told apart: bytes count as held where any lane needs them.
    """
    memory = _Memory(spec)
    found: list[Piece] = []
    for place, instruction in enumerate(instructions):
        touched = [access for access in accesses(instruction, spec) if access.is_local]
        read = [box for access in touched if not access.write for box in access.boxes]
        for box in read:
            memory.read(box, place)
        for access in touched:
            for box in access.boxes if access.write else ():
                found += memory.write(box, place)
    return sorted([*found, *memory.rest()], key=lambda piece: (piece.first, piece.start))


class _Memory:
    """For each cell of a lane, as wide as its vector unit: since when it holds what, and who read it last."""

    def __init__(self, spec: ChipSpec) -> None:
        self._width = spec.eu_bytes
        cells = spec.lane_bytes // spec.eu_bytes
        self._first = np.full(cells, -1)
        self._last = np.full(cells, -1)
        self._lanes = np.zeros((2, cells), int)  # first and end of those that hold something

    def _cells(self, box: Box) -> slice:
        return slice(box.start // self._width, -(-box.end // self._width))

    def read(self, box: Box, place: int) -> None:
        cells = self._cells(box)
        self._last[cells] = place
        fresh = self._first[cells] < 0  # there from before the program
        self._first[cells][fresh] = 0

    def write(self, box: Box, place: int) -> Iterator[Piece]:
        """Replace what the box held; a part of its lanes, or what was read just now, only adds to it."""
        cells = self._cells(box)
        lanes = self._lanes[:, cells]
        replaced = (box.lane <= lanes[0]) & (lanes[1] <= box.lane_end) & (self._last[cells] != place)
        yield from self._ended(cells.start, np.flatnonzero(replaced & (self._first[cells] >= 0)))
        fresh = replaced | (self._first[cells] < 0)
        self._first[cells][fresh] = place
        self._last[cells] = place
        lanes[0] = np.where(fresh, box.lane, np.minimum(lanes[0], box.lane))
        lanes[1] = np.where(fresh, box.lane_end, np.maximum(lanes[1], box.lane_end))

    def rest(self) -> Iterator[Piece]:
        yield from self._ended(0, np.flatnonzero(self._first >= 0))

    def _ended(self, offset: int, cells: Array) -> Iterator[Piece]:
        """The contents of some cells, neighbours with the same history as one."""
        cells = cells + offset
        if not cells.size:
            return
        first, last = self._first[cells], self._last[cells]
        breaks = (np.diff(cells) != 1) | (np.diff(first) != 0) | (np.diff(last) != 0)
        for part in np.split(np.arange(cells.size), np.flatnonzero(breaks) + 1):
            start, end = int(cells[part[0]]) * self._width, (int(cells[part[-1]]) + 1) * self._width
            yield Piece(start, end, int(first[part[0]]), int(last[part[0]]))


def peak(found: Iterable[Piece]) -> int:
    """The most bytes per lane that are held at once."""
    changes: list[tuple[int, int]] = []
    for piece in found:
        size = piece.end - piece.start
        changes += [(2 * piece.first, size), (2 * piece.last + 1, -size)]
    held = most = 0
    for _, size in sorted(changes):
        held += size
        most = max(most, held)
    return most
