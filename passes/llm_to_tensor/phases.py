"""The phases of a program that meets those of other cores: what is between two sums over all of them.

Each run of tokens sends its terms at the end of a phase, and adds up those of all cores at the start of the
next. All runs go through one phase before any goes through the next, so that others compute while one waits;
see `in_turn` for the last phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeVar

from compiler.ir.core import Op, Value
from dialects import llm

RunT = TypeVar("RunT")

AT_ONCE = 40  # terms that are sent and not received: each takes two messages, of which there are a hundred
NAMED = (llm.TableOp, llm.GatherRowsOp)  # rows that are loaded where they are read


def phases_of(ops: Sequence[Op]) -> list[list[Op]]:
    """The ops of each, in order, each op as early as what it reads is there; a sum ends a phase and begins
    the next.
    """
    phases: list[list[Op]] = [[]]
    there: dict[Value, int] = {}
    for op in ops:
        number = max((there.get(value, 0) for value in op.operands), default=0)
        phases[number].append(op)
        if isinstance(op, llm.AllReduceOp):
            number += 1
            phases += [[]] if number == len(phases) else []
            phases[number].append(op)
        there |= dict.fromkeys(op.results, number)
    return phases


def runs_at_once(phases: Sequence[Sequence[Op]]) -> int:
    """How many runs go through a phase before the first goes through the next: one where local memory would
    have to keep for each what it has computed before.
    """
    sums = max(sum(isinstance(op, llm.AllReduceOp) for op in phase) for phase in phases)
    return max(1, AT_ONCE // max(1, sums)) if keep_nothing(phases) else 1


def keep_nothing(phases: Sequence[Sequence[Op]]) -> bool:
    """Whether no phase reads what another one has computed, but for the sums."""
    made = {value: number for number, phase in enumerate(phases) for op in phase for value in op.results}
    return all(
        made.get(value, number) == number or llm.is_weight(value) or isinstance(value.owner, NAMED)
        for number, phase in enumerate(phases)
        for op in phase
        if not isinstance(op, llm.AllReduceOp)
        for value in op.operands
    )


def in_turn(phases: int, runs: Sequence[RunT]) -> list[tuple[int, RunT]]:
    """The number of a phase and the run that goes through it, phase by phase. What is behind the last sum of
    a run comes as soon as the next run has computed, which then has time for it in between.
    """

    def place(step: tuple[int, int]) -> tuple[int, int, int]:
        number, index = step
        return (number - 1, index + 1, 1) if 0 < number == phases - 1 else (number, index, 0)

    steps = product(range(phases), range(len(runs)))
    return [(number, runs[index]) for number, index in sorted(steps, key=place)]
