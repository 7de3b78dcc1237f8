"""The instruction queues of a program and the orders in which they may run.

Each engine of each core runs its own queue in order. An instruction may start when the other engine of its
core has completed as many instructions as its `cmd_id_dep` says and, if it waits for a message, when enough
senders have sent that message. Everything else may happen in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from compiler.target.isa import Instruction
from compiler.target.messages import Message, message_of

ENGINES = ("tiu", "dma")

Meeting = tuple[int, int]  # of senders and waiters: a message, and how many times it was used before
Choose = Callable[[list[int]], int]  # picks one of the queues that may go on


@dataclass(frozen=True)
class CoreProgram:
    """The two streams of one core, decoded, end commands included."""

    tiu: Sequence[Instruction]
    dma: Sequence[Instruction]


class Step(NamedTuple):
    """One instruction in its place: `number` counts from 1 on its queue, as ids do."""

    queue: int  # 2 * core, plus 1 for the DMA
    number: int
    instruction: Instruction
    meeting: Meeting | None = None  # what it sends or waits for

    @property
    def core(self) -> int:
        return self.queue // 2

    @property
    def engine(self) -> str:
        return ENGINES[self.queue % 2]

    def __str__(self) -> str:
        core = f"core {self.core} " if self.core else ""
        return f"{core}{self.engine} {self.number} ({self.instruction.name}.{self.instruction.kind})"


class Deadlock(Exception):
    """No queue can go on: each waits for something that never comes."""


class Queues:
    """How far each queue has come; queue 2*core is a core's TIU, queue 2*core + 1 its DMA."""

    def __init__(self, cores: Sequence[CoreProgram]) -> None:
        self.streams = [stream for core in cores for stream in (core.tiu, core.dma)]
        self.done = [0] * len(self.streams)
        self._sends: Counter[Meeting] = Counter()
        self._used: Counter[tuple[int, bool, int]] = Counter()  # (queue, whether to send, message)

    def ready(self) -> list[int]:
        """The queues whose next instruction may start now."""
        return [queue for queue in range(len(self.streams)) if self._may_start(queue)]

    def _may_start(self, queue: int) -> bool:
        if self.done[queue] == len(self.streams[queue]):
            return False
        instruction = self.streams[queue][self.done[queue]]
        if instruction.wait > self.done[queue ^ 1]:
            return False
        message = message_of(instruction)
        if message is None or message.is_send:
            return True
        return self._sends[self._meeting(queue, message)] >= message.members

    def _meeting(self, queue: int, message: Message) -> Meeting:
        return message.number, self._used[queue, message.is_send, message.number]

    def advance(self, queue: int) -> Step:
        """Complete the next instruction of a ready queue."""
        instruction = self.streams[queue][self.done[queue]]
        self.done[queue] += 1
        meeting = None
        if message := message_of(instruction):
            meeting = self._meeting(queue, message)
            self._used[queue, message.is_send, message.number] += 1
            self._sends[meeting] += message.is_send
        return Step(queue, self.done[queue], instruction, meeting)

    def stuck(self) -> str:
        """What the queues that are not at their end wait for; empty when all are."""
        heads = []
        for queue, (done, stream) in enumerate(zip(self.done, self.streams, strict=True)):
            if done < len(stream):
                heads.append(f"{Step(queue, done + 1, stream[done])} waits for {self._missing(queue)}")
        return ", ".join(heads)

    def _missing(self, queue: int) -> str:
        """What the next instruction of a queue that cannot go on waits for."""
        instruction = self.streams[queue][self.done[queue]]
        wanted = instruction.wait
        if wanted > self.done[queue ^ 1]:
            return f"{ENGINES[1 - queue % 2]} {wanted}"
        message = message_of(instruction)
        assert message is not None
        sent = self._sends[self._meeting(queue, message)]
        return f"message {message.number}, sent {sent} of {message.members} times"


def run_order(cores: Sequence[CoreProgram], choose: Choose) -> Iterator[Step]:
    """The instructions in one of the orders that the waits permit; Deadlock when they permit none."""
    queues = Queues(cores)
    while ready := queues.ready():
        yield queues.advance(choose(ready))
    if stuck := queues.stuck():
        raise Deadlock(stuck)
