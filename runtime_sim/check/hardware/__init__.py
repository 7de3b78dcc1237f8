"""Rules of the chip that Sophgo's C-model does not enforce: fields, types, alignment, lanes, bounds, overlap.

The C-model accepts what breaks them, or computes something else without a word; the chip need not even do
that. Each instruction is checked by itself, from its fields; nothing is executed. A rule is here when the
chips' instruction reference states it and the vendor's own programs keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.check.hardware.fields import FIELD_RULES
from runtime_sim.check.hardware.operands import OPERAND_RULES
from runtime_sim.check.ranges import accesses, without_ids
from runtime_sim.launch.queues import CoreProgram

MAX_PROBLEMS = 10  # of one stream; the rest is seldom news


def hardware_problems(core: CoreProgram, spec: ChipSpec) -> Iterator[str]:
    """At most one sentence for an instruction, and MAX_PROBLEMS for a stream."""
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        yield from islice(_stream_problems(engine, stream, spec), MAX_PROBLEMS)


def _stream_problems(engine: str, stream: Sequence[Instruction], spec: ChipSpec) -> Iterator[str]:
    known: dict[tuple[object, ...], str | None] = {}  # most instructions come again in other tiles
    for number, instruction in enumerate(stream, 1):
        key = without_ids(instruction)
        if key not in known:
            known[key] = next(iter(problems_of(instruction, spec)), None)
        if problem := known[key]:
            yield f"{engine} {number} ({instruction.name}.{instruction.kind}): {problem}"


def problems_of(instruction: Instruction, spec: ChipSpec) -> list[str]:
    """What an instruction breaks: each kind of rule takes for granted that those before it are kept."""
    broken = [problem for rule in FIELD_RULES for problem in rule(instruction, spec)]
    if broken:
        return broken
    touched = accesses(instruction, spec)
    found = (list(rule(instruction, touched, spec)) for rule in OPERAND_RULES)
    return next(filter(None, found), [])
