"""The ops of a block, as a linked list.

Inserting and erasing cost the same in a function of ten ops and of twenty thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.ir.core import Block, Op

MAX_OPS = 1 << 22  # in a block, buffers and instructions; an engine numbers 2**20 of its commands


class OpList:
    """The ops of a block, in order. While iterating, the current op may be erased or moved."""

    __slots__ = ("_count", "_listed", "block", "first", "last")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.first: Op | None = None
        self.last: Op | None = None
        self._count = 0
        self._listed: Sequence[Op] | None = None

    def insert(self, op: Op, before: Op | None) -> None:
        """Insert ``op`` before another op of this block, or at the end when ``before`` is None."""
        assert op.parent is None, f"{op.opname} is already in a block"
        if self._count >= MAX_OPS:
            op.fail(f"is one more than the {MAX_OPS} ops that a block may have")
        previous = before._previous if before else self.last
        op.parent, op._previous, op._next = self.block, previous, before
        if previous:
            previous._next = op
        else:
            self.first = op
        if before:
            before._previous = op
        else:
            self.last = op
        self._count += 1
        self._listed = None
        op._order = None

    def remove(self, op: Op) -> None:
        previous, following = op._previous, op._next
        if previous:
            previous._next = following
        else:
            self.first = following
        if following:
            following._previous = previous
        else:
            self.last = previous
        op.parent = op._previous = op._next = None
        self._count -= 1
        self._listed = None

    def listed(self) -> Sequence[Op]:
        """All ops as they are now, for who changes none of their places meanwhile: faster to go through."""
        if self._listed is None:
            found, op = [], self.first
            while op is not None:
                found.append(op)
                op = op._next
            self._listed = found
        return self._listed

    def arrange(self, ops: Sequence[Op]) -> None:
        """Put all ops of the list into another order, which costs less than to move them one by one."""
        assert len(ops) == self._count, f"{len(ops)} ops in the place of {self._count}"
        self._listed = None
        previous = None
        for op in ops:
            op._previous, op._order = previous, None
            if previous is not None:
                previous._next = op
            previous = op
        self.first, self.last = (ops[0], ops[-1]) if ops else (None, None)
        if self.last is not None:
            self.last._next = None

    def keep(self, ops: Sequence[Op]) -> None:
        """Have these alone, in this order, where all others were released."""
        self._count = len(ops)
        self.arrange(ops)

    def number(self) -> None:
        """Number the ops so that two can be compared; those numbered stay in order, whatever is inserted."""
        for index, op in enumerate(self.listed()):
            op._order = index

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Op]:
        op = self.first
        while op is not None:
            following = op._next
            yield op
            if op.parent is self.block:
                following = op._next
            elif following is not None and following.parent is not self.block:
                raise RuntimeError("the next op was removed as well; iterate over list(block.ops)")
            op = following

    def __reversed__(self) -> Iterator[Op]:
        op = self.last
        while op is not None:
            previous = op._previous
            yield op
            op = previous

    def __getitem__(self, index: int) -> Op:
        """By position; walks the list, except for 0 and -1."""
        op = self.first if index == 0 else self.last if index == -1 else None
        return op or list(self)[index]
