"""Which buffers should not lie in one bank: the result of an element-wise instruction and what it reads.

An instruction that writes to a bank that it reads from takes twice as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from compiler.ir.core import Op, Value
from compiler.target.spec import ChipSpec
from dialects.chip import ArOp, View


class Meeting(NamedTuple):
    """One instruction writes one of two buffers while it reads the other, each from an offset in it on."""

    offset: int
    other: Value
    other_offset: int
    items: int


class Banks:
    """What each buffer meets, and where the buffers lie so far."""

    def __init__(self, ops: Iterable[Op], spec: ChipSpec) -> None:
        self.bytes = spec.bank_bytes
        self.placed: dict[Value, int] = {}
        self._meetings: dict[Value, list[Meeting]] = defaultdict(list)
        for op in ops:
            if isinstance(op, ArOp):
                self._add(op)

    def _add(self, op: ArOp) -> None:
        items = prod(op.shape)
        for buffer, view in ((op.src0, op.opd0), (op.src1, op.opd1)):
            if buffer is not None and isinstance(view, View):
                self._meetings[op.dst].append(Meeting(op.res.offset, buffer, view.offset, items))
                self._meetings[buffer].append(Meeting(view.offset, op.dst, op.res.offset, items))

    def met(self, buffer: Value) -> dict[tuple[int, int], int]:
        """Items that an instruction has in `buffer`, from an offset in it on, and in a bank with a place."""
        found: dict[tuple[int, int], int] = defaultdict(int)
        for meeting in self._meetings.get(buffer, ()):
            other = self.placed.get(meeting.other)
            if other is not None:
                found[meeting.offset, (other + meeting.other_offset) // self.bytes] += meeting.items
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
