"""Which position of a program last touched the bytes of DDR that an access means."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import gcd
from typing import TypeGuard

import numpy as np
from numpy.lib.stride_tricks import as_strided

from compiler.ir.core import Op, Value
from compiler.target.spec import ChipSpec
from dialects.chip import Access, DmaOp, GlobalType, TransferOp, WaitOp, checked_accesses


def is_store(op: Op) -> TypeGuard[TransferOp]:
    return isinstance(op, TransferOp) and isinstance(op.operands[0].type, GlobalType)


def stored_regions(ops: Iterable[Op]) -> set[Value]:
    """What the program stores to, and what it waits for other cores to have stored to."""
    found: set[Value] = set()
    for op in ops:
        if isinstance(op, TransferOp):
            if is_store(op):
                found.add(op.operands[0])
        elif isinstance(op, WaitOp):
            found.update(op.awaited)
    return found


def commands_on(buffers: Collection[Value], ops: Iterable[Op], spec: ChipSpec) -> dict[Op, list[Access]]:
    """What each command touches of some buffers; CompileError when it leaves one."""
    found: dict[Op, list[Access]] = {}
    for op in ops:
        if isinstance(op, DmaOp) and any(value in buffers for value in op.operands):
            found[op] = [access for access in checked_accesses(op, spec) if access.buffer in buffers]
    return found


def in_ddr(access: Access) -> bool:
    return isinstance(access.buffer.type, GlobalType)


class LastTouch:
    """A number for every byte of the regions that some accesses touch, exact for those accesses.

    The bytes of a region are counted in cells, the largest that divide all its accesses into whole ones. So
    an access costs what it moves, divided by such a cell: little beside any other work on it, however many
    views of one region a program has.
    """

    def __init__(self, accesses: Iterable[Access]) -> None:
        self._bytes: dict[Value, int] = {}  # of a cell
        for access in accesses:
            steps = (step for _, step in access.loops)
            known = self._bytes.get(access.buffer, 0)
            self._bytes[access.buffer] = gcd(known, access.start, access.piece_bytes, *steps)
        self._cells = {
            buffer: np.full(buffer.type.bytes // size, -1, np.int32) for buffer, size in self._bytes.items()
        }

    def newest(self, access: Access) -> int:
        """The largest number of the bytes of an access; -1 where none was recorded."""
        return int(self._of(access).max())

    def record(self, access: Access, number: int) -> None:
        """Give the bytes of an access this number, where they have no larger one."""
        cells = self._of(access)
        np.maximum(cells, number, out=cells)

    def _of(self, access: Access) -> np.ndarray:
        size, cells = self._bytes[access.buffer], self._cells[access.buffer]
        start, piece = access.start // size, access.piece_bytes // size
        if not access.loops:
            return cells[start : start + piece]
        shape = [count for count, _ in access.loops]
        strides = [step // size * cells.itemsize for _, step in access.loops]
        return as_strided(cells[start:], (*shape, piece), (*strides, cells.itemsize))
