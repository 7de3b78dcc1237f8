"""Rules of the chip that Sophgo's C-model does not enforce: fields, types, alignment, lanes, bounds, overlap.

The C-model accepts what breaks them, or computes something else without a word, or aborts without a reason;
the chip need not even do that. Each instruction is checked by itself, from its fields; nothing is executed. A
rule is here when the chips' instruction reference states it and the vendor's own programs keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeAlias

from compiler.target.isa import Instruction, PerBody
from compiler.target.spec import ChipSpec
from runtime_sim.check.hardware.fields import FIELD_RULES
from runtime_sim.check.hardware.operands import OPERAND_RULES
from runtime_sim.check.ranges import Ranges, accesses, ranges_on
from runtime_sim.launch.queues import CoreProgram

MAX_PROBLEMS = 10  # of one stream; the rest is seldom news


FirstProblems: TypeAlias = PerBody[str | None]


def first_problems(spec: ChipSpec, ranges: Ranges) -> FirstProblems:
    """The first thing that an instruction breaks, if any; `ranges` has what it touches."""
    return PerBody(lambda instruction: next(iter(problems_of(instruction, spec, ranges)), None))


def hardware_problems(core: CoreProgram, spec: ChipSpec, first: FirstProblems | None = None) -> Iterator[str]:
    """At most one sentence for an instruction, and MAX_PROBLEMS for a stream."""
    first = first or first_problems(spec, ranges_on(spec))
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        yield from islice(_stream_problems(engine, stream, first), MAX_PROBLEMS)


def _stream_problems(engine: str, stream: Sequence[Instruction], first: FirstProblems) -> Iterator[str]:
    for number, instruction in enumerate(stream, 1):
        if problem := first(instruction):
            yield f"{engine} {number} ({instruction.name}.{instruction.kind}): {problem}"


def problems_of(instruction: Instruction, spec: ChipSpec, ranges: Ranges | None = None) -> list[str]:
    """What an instruction breaks: each kind of rule takes for granted that those before it are kept."""
    broken = [problem for rule in FIELD_RULES for problem in rule(instruction, spec)]
    if broken:
        return broken
    touched = ranges(instruction) if ranges else accesses(instruction, spec)
    found = (list(rule(instruction, touched, spec)) for rule in OPERAND_RULES)
    return next(filter(None, found), [])
