"""Which core a program is for, and what the cores of its net have exchanged so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from compiler.ir.core import Op, Value
from dialects import tensor
from dialects.nets import NetPart

START = 30  # by which all meet first; as in the vendor's programs, which have this one and the next


@dataclass(frozen=True)
class Meeting:
    """A message, and the region of each core in which it publishes something."""

    message: int
    regions: Sequence[Value] = ()


@dataclass
class Cores:
    """The cores that run a net; all go through the same meetings in the same order."""

    part: NetPart
    messages: int = 2  # that are used in turn after the first
    meetings: int = 0  # so far
    regions: int = 0  # that are shared so far
    open: dict[Value, Meeting] = field(default_factory=dict)  # what is sent and not yet received

    @classmethod
    def of(cls, part: NetPart, ops: Iterable[Op]) -> Cores:
        """With so many messages that none is sent anew while others may wait for it.

        Where n are sent before the first is received, the one that meets the next send of this core was sent
        behind n others, so its core has received all but the n before these.
        """
        ahead, most = 0, 1
        for op in ops:
            ahead += isinstance(op, tensor.SendOp) - isinstance(op, tensor.ReceiveOp)
            most = max(most, ahead)
        return cls(part, 2 * most)

    def next_message(self) -> int:
        """The first is none of those that follow: when the first core is done, another may still wait for the
        last, while the next launch begins.
        """
        self.meetings += 1
        return START if self.meetings == 1 else START + 1 + (self.meetings - 2) % self.messages
