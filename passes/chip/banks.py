"""Which buffers should not lie in one bank: the result of an element-wise instruction and what it reads.

An instruction that writes to a bank that it reads from takes twice as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from compiler.ir.core import Op, Value
from compiler.target.spec import ChipSpec
from dialects.chip import ArOp, Instruction, View
from passes.chip.forms import PerForm


class Meeting(NamedTuple):
    """An instruction writes a buffer from an offset in it on while it reads one of its operands."""

    written_offset: int
    operand: int
    read_offset: int
    items: int


def meetings_of(op: Instruction, spec: ChipSpec) -> list[Meeting]:
    assert isinstance(op, ArOp)
    return [
        Meeting(op.res.offset, op.operands.index(buffer), view.offset, prod(op.shape))
        for buffer, view in ((op.src0, op.opd0), (op.src1, op.opd1))
        if buffer is not None and isinstance(view, View)
    ]


class Banks:
    """What each buffer meets, and where the buffers lie so far."""

    def __init__(self, ops: Iterable[Op], spec: ChipSpec) -> None:
        self.bytes = spec.bank_bytes
        self.placed: dict[Value, int] = {}
        # Of each buffer, with each other one: where in it, in which and where in that, and how many items.
        self._meetings: dict[Value, list[tuple[int, Value, int, int]]] = defaultdict(list)
        meetings = PerForm(meetings_of, spec)
        for op in ops:
            if isinstance(op, ArOp):
                self._add(op.operands, meetings(op))

    def _add(self, buffers: Sequence[Value], meetings: Iterable[Meeting]) -> None:
        written = buffers[0]
        for at, operand, other_at, items in meetings:
            read = buffers[operand]
            self._meetings[written].append((at, read, other_at, items))
            self._meetings[read].append((other_at, written, at, items))

    def met(self, buffer: Value) -> dict[tuple[int, int], int]:
        """Items that an instruction has in `buffer`, from an offset in it on, and in a bank with a place."""
        found: dict[tuple[int, int], int] = defaultdict(int)
        for offset, other, other_offset, items in self._meetings.get(buffer, ()):
            start = self.placed.get(other)
            if start is not None:
                found[offset, (start + other_offset) // self.bytes] += items
        return found

    def best(self, buffer: Value, starts: Iterable[int]) -> int:
        """The first of the possible places with the fewest collisions; the buffer is put there."""
        met = self.met(buffer)
        best, fewest = -1, None
        for start in starts:
            collisions = sum(
                items for (offset, bank), items in met.items() if (start + offset) // self.bytes == bank
            )
            if fewest is None or collisions < fewest:
                best, fewest = start, collisions
            if not fewest:
                break
        self.placed[buffer] = best
        return best
