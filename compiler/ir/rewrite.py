"""Local rewrites: guards first, the replacement last, applied until nothing changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from compiler.diagnostics import CompileError
from compiler.ir.core import Op, Value
from compiler.ir.module import walk

F = TypeVar("F", bound=Callable[..., None])
OpT = TypeVar("OpT", bound=Op)
Pattern = Callable[[Any, "Rewriter"], None]

# A rewrite that undoes another would run forever; no real function needs this many visits per op.
MAX_VISITS_PER_OP = 1000


def rewrite(*op_classes: type[Op]) -> Callable[[F], F]:
    """Mark a function or method ``(op, rewriter)`` as a rewrite of ops of these classes."""

    def wrap(function: F) -> F:
        function.rewrites = op_classes  # type: ignore[attr-defined]
        return function

    return wrap


class Rewriter:
    """What a rewrite may do. It tracks which ops are worth visiting again."""

    def __init__(self) -> None:
        self.changes = 0
        self._queue: deque[Op] = deque()
        self._queued: set[Op] = set()

    def replace(self, op: Op, by: Op | Value | Sequence[Value]) -> None:
        """Put a new op (inserted here unless it has a place) or values instead of ``op``, and erase it.

        Producers that nothing reads any more go as well.
        """
        if isinstance(by, Op):
            if by.parent is None:
                self.insert_before(op, by)
            values: Sequence[Value] = by.results
        else:
            values = [by] if isinstance(by, Value) else by
        if len(values) != len(op.results):
            raise ValueError(f"{op.opname} has {len(op.results)} results, replaced by {len(values)} values")
        for old, new in zip(op.results, values, strict=True):
            for user in old.users:
                self.visit(user)
            new.name_hint = new.name_hint or old.name_hint
            old.replace_by(new)
        self.erase(op)

    def insert_before(self, anchor: Op, new: OpT) -> OpT:
        assert anchor.parent is not None
        anchor.parent.insert_before(anchor, new)
        self.changes += 1
        self.visit(new)
        return new

    def insert_after(self, anchor: Op, new: OpT) -> OpT:
        assert anchor.parent is not None
        anchor.parent.ops.insert(new, anchor.next_op)
        self.changes += 1
        self.visit(new)
        return new

    def erase(self, op: Op) -> None:
        """Erase an op and the producers that it alone kept alive."""
        producers = [value.owner for value in op.operands]
        op.erase()
        self.changes += 1
        for producer in producers:
            if isinstance(producer, Op) and producer.parent is not None:
                self._left_by_reader(producer)

    def _left_by_reader(self, producer: Op) -> None:
        if producer.is_dead():
            self.erase(producer)
        else:
            self.visit(producer)
            for user in (user for result in producer.results for user in result.users):
                self.visit(user)

    def visit(self, op: Op) -> None:
        """Have the patterns look at ``op`` again."""
        if op not in self._queued:
            self._queued.add(op)
            self._queue.append(op)

    def _pop(self) -> Op | None:
        while self._queue:
            op = self._queue.popleft()
            self._queued.discard(op)
            if op.parent is not None:
                return op
        return None


def apply_patterns(root: Op, patterns: Sequence[Pattern]) -> int:
    """Run rewrites inside ``root`` to a fixed point, in program order; returns how many changes were made."""
    rewriter = Rewriter()
    for inner in walk(root):
        rewriter.visit(inner)
    budget = MAX_VISITS_PER_OP * len(rewriter._queue)
    while (op := rewriter._pop()) is not None:
        budget -= 1
        if budget < 0:
            names = ", ".join(getattr(p, "__name__", repr(p)) for p in patterns)
            raise CompileError(f"the rewrites {names} undo each other", op.loc, op=op)
        _try_patterns(op, patterns, rewriter)
    return rewriter.changes


def _try_patterns(op: Op, patterns: Sequence[Pattern], rewriter: Rewriter) -> None:
    for pattern in patterns:
        if op.parent is None:
            return
        if isinstance(op, pattern.rewrites):  # type: ignore[attr-defined]
            pattern(op, rewriter)
