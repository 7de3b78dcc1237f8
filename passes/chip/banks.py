"""Which buffers should not lie in one bank: the result of an element-wise instruction and what it reads."""

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

    def collisions(self, buffer: Value, start: int) -> int:
        """Items read from the bank they are written to, if the buffer lies at `start`: twice the work."""
        return sum(
            meeting.items
            for meeting in self._meetings.get(buffer, ())
            if (other := self.placed.get(meeting.other)) is not None
            and (start + meeting.offset) // self.bytes == (other + meeting.other_offset) // self.bytes
        )

    def best(self, buffer: Value, starts: Iterable[int]) -> int:
        """The first of the possible places with the fewest collisions; the buffer is put there."""
        self.placed[buffer] = best = min(starts, key=lambda start: self.collisions(buffer, start))
        return best
