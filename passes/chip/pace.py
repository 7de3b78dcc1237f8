"""How far both engines are in a program whose buffers have no addresses yet: an estimate, to order it by."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from compiler.ir.core import Op, Value
from compiler.target import isa
from compiler.target.spec import ChipSpec
from compiler.target.timing import cycles
from dialects.chip import DmaOp, GlobalType, Instruction, LocalType, Placement
from passes.chip.forms import PerForm

NEVER = float("inf")


class Demand(NamedTuple):
    """What an instruction takes: cycles, and local buffers, by their operands and whether it writes them."""

    cycles: int
    buffers: Sequence[tuple[int, bool]]


NOTHING = Demand(0, ())


def demand_of(op: Instruction, spec: ChipSpec) -> Demand:
    """Cautious cycles; buffers count as lying apart."""
    written, *_ = op.operands or (None,)
    buffers = [(i, x is written) for i, x in enumerate(op.operands) if isinstance(x.type, LocalType)]
    return Demand(duration(op, spec), buffers)


def duration(op: Instruction, spec: ChipSpec) -> int:
    def address(buffer: Value) -> int:
        if isinstance(buffer.type, GlobalType):
            return spec.ddr_base
        return local_buffers(op).index(buffer) * spec.local_bytes

    fields = defaultdict(int, op.fields(Placement(spec, address, spec.lane_bytes)))
    return cycles(isa.Instruction(op.family, op.isa_kind(), fields), spec, cautious=True)


class Pace:
    """The compute engine works through `ops` in order as far as the DMA commands issued so far let it.

    Commands are issued in any order, by their position in `ops`. An instruction waits for every earlier
    command that writes to its buffers, and where it writes itself, for those that read there; that a command
    waits for a buffer to be free is the caller's to say.
    """

    def __init__(self, ops: Sequence[Op], spec: ChipSpec) -> None:
        demand = PerForm(demand_of, spec)
        demands = [demand(op) if isinstance(op, Instruction) else NOTHING for op in ops]
        self.cycles = [cycles for cycles, _ in demands]
        self.dma_free = 0.0
        number: dict[Value, int] = defaultdict(count().__next__)
        self._is_command = [isinstance(op, DmaOp) for op in ops]
        # Of each op, its buffers as what it uses: twice the number if it reads, one more if it writes.
        self._uses = [
            [2 * number[op._operands[index]] + written for index, written in buffers]
            for op, (_, buffers) in zip(ops, demands, strict=True)
        ]
        self._done = [0.0]  # by when all compute instructions before each position are done
        self._data = [0.0] * (2 * len(number))  # by when the commands issued of each use are done
        self._missing = [0] * (2 * len(number))  # commands of each use passed by that are not yet issued
        self._issued: set[int] = set()
        self._advance()

    @property
    def compute_free(self) -> float:
        """By when the compute engine is done with all that it need not wait for commands for."""
        return self._done[-1]

    def position_at(self, time: float) -> int:
        """The position of the compute instruction that runs at that time."""
        return bisect_left(self._done, time) - 1

    def start(self, place: int) -> float:
        """The earliest start of a command that needs the compute instructions before `place`.

        NEVER if they wait for a command that is not yet issued.
        """
        return max(self.dma_free, self._done[place] if place < len(self._done) else NEVER)

    def issue(self, position: int, place: int) -> None:
        """Start the command at `position`, which needs what comes before `place`, and let compute go on."""
        self.dma_free = end = self.start(place) + self.cycles[position]
        self._issued.add(position)
        for use in self._uses[position]:
            self._data[use] = max(end, self._data[use])
            if position < len(self._done) - 1:
                self._missing[use] -= 1
        self._advance()

    def _advance(self) -> None:
        """Let the compute engine go on to the first instruction that waits for a command."""
        done, now = self._done, self._done[-1]
        for position in range(len(done) - 1, len(self.cycles)):
            uses = self._uses[position]
            if self._is_command[position]:
                if position not in self._issued:
                    for use in uses:
                        self._missing[use] += 1
            else:
                for use in uses:
                    for other in awaited(use):
                        if self._missing[other]:
                            return
                        now = max(now, self._data[other])
                now += self.cycles[position]
            done.append(now)


def awaited(use: int) -> Sequence[int]:
    """The uses of a buffer by commands that one of it by an instruction comes behind."""
    return (use - 1, use) if use % 2 else (use + 1,)


def local_buffers(op: Op) -> list[Value]:
    """The local buffers of an op, which for others than instructions are none."""
    return [value for value in op.operands if isinstance(value.type, LocalType)]
