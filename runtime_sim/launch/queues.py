"""The instruction queues of a program and the orders in which they may run.

Each engine of each core runs its own queue in order. An instruction may start when the other engine of its
core has completed as many instructions as its `cmd_id_dep` says and, if it waits for a message, when enough
senders have sent that message. Everything else may happen in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from compiler.target.isa import Instruction

ENGINES = ("tiu", "dma")

Meeting = tuple[int, int]  # of senders and waiters: a message, and how many times it was used before
Choose = Callable[[list[int]], int]  # picks one of the queues that may go on


@dataclass(frozen=True)
class CoreProgram:
    """The two streams of one core, decoded, end commands included."""

    tiu: Sequence[Instruction]
    dma: Sequence[Instruction]


@dataclass(frozen=True)
class Step:
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
        self._used: Counter[tuple[int, str, int]] = Counter()  # (queue, send or wait, message)

    def ready(self) -> list[int]:
        """The queues whose next instruction may start now."""
        return [queue for queue in range(len(self.streams)) if self._may_start(queue)]

    def _may_start(self, queue: int) -> bool:
        if self.done[queue] == len(self.streams[queue]):
            return False
        instruction = self.streams[queue][self.done[queue]]
        if instruction.fields.get("cmd_id_dep", 0) > self.done[queue ^ 1]:
            return False
        if not _is_message(instruction, "wait"):
            return True
        return self._sends[self._meeting(queue, instruction)] >= senders(instruction)

    def _meeting(self, queue: int, instruction: Instruction) -> Meeting:
        message = _message(instruction)
        return message, self._used[queue, instruction.kind[:4], message]

    def advance(self, queue: int) -> Step:
        """Complete the next instruction of a ready queue."""
        instruction = self.streams[queue][self.done[queue]]
        self.done[queue] += 1
        meeting = None
        if _is_message(instruction, "send") or _is_message(instruction, "wait"):
            meeting = self._meeting(queue, instruction)
            self._used[queue, instruction.kind[:4], meeting[0]] += 1
            self._sends[meeting] += _is_message(instruction, "send")
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
        wanted = instruction.fields.get("cmd_id_dep", 0)
        if wanted > self.done[queue ^ 1]:
            return f"{ENGINES[1 - queue % 2]} {wanted}"
        sent = self._sends[self._meeting(queue, instruction)]
        return f"message {_message(instruction)}, sent {sent} of {senders(instruction)} times"


def run_order(cores: Sequence[CoreProgram], choose: Choose) -> Iterator[Step]:
    """The instructions in one of the orders that the waits permit; Deadlock when they permit none."""
    queues = Queues(cores)
    while ready := queues.ready():
        yield queues.advance(choose(ready))
    if stuck := queues.stuck():
        raise Deadlock(stuck)


def _is_message(instruction: Instruction, what: str) -> bool:
    return instruction.name in ("sys", "dma_sys") and instruction.kind in (what, f"{what}_msg")


def _operand(instruction: Instruction) -> int:
    return instruction.fields["imm" if instruction.name == "sys" else "constant_value"]


def _message(instruction: Instruction) -> int:
    """The number of the message: bits 0..6 of the operand on both engines."""
    return _operand(instruction) & 0x7F


def senders(instruction: Instruction) -> int:
    """How many send a message and wait for it: bits 16.. of the TIU's operand, bits 8.. of the DMA's."""
    shift, mask = (16, 0x7) if instruction.name == "sys" else (8, 0x7F)
    return _operand(instruction) >> shift & mask
