"""Which bytes an instruction reads and writes, from its fields alone.

A range is never too small; it may be too large where exactness costs more than it gives. Local memory is
lanes x bytes, so a range is a list of boxes: every lane of an interval, the same bytes in each. Global memory
(DDR and on-chip SRAM, seen by the DMA only) is one lane of absolute addresses. Items are counted in nibbles
in this folder, because BM1688 has 4-bit ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges import dma, tiu
from runtime_sim.check.ranges.boxes import Access, Box, Fields, Rule, Tensor, lane_groups, local_boxes
from runtime_sim.check.ranges.dma import local_address

__all__ = [
    "Access",
    "Box",
    "Tensor",
    "accesses",
    "accesses_of_all",
    "lane_groups",
    "local_address",
    "local_boxes",
    "without_ids",
]


def without_ids(instruction: Instruction) -> tuple[object, ...]:
    """What all instructions have in common that do the same to the same places."""
    if instruction.body:
        return instruction.name, instruction.size, instruction.body
    fields = dict(instruction.fields)
    fields.pop("cmd_id", None)
    fields.pop("cmd_id_dep", None)
    return (instruction.name, instruction.kind, instruction.size, *fields.values())


def accesses_of_all(instructions: Iterable[Instruction], spec: ChipSpec) -> list[list[Access]]:
    """`accesses` of each; most instructions come again in other tiles."""
    known: dict[tuple[object, ...], list[Access]] = {}
    found = []
    for instruction in instructions:
        key = without_ids(instruction)
        if key not in known:
            known[key] = accesses(instruction, spec)
        found.append(known[key])
    return found


def accesses(instruction: Instruction, spec: ChipSpec) -> list[Access]:
    """Everything the instruction reads and writes; all of local memory when it is of an unknown kind."""
    rule = RULES.get(instruction.name)
    found = rule(instruction.kind, instruction.fields, spec) if rule else None
    return list(found) if found is not None else _everything(spec)


def _everything(spec: ChipSpec) -> list[Access]:
    boxes = [Box(0, spec.lanes, 0, spec.lane_bytes)]
    return [Access("all", False, True, boxes), Access("all", True, True, boxes)]


def _none(kind: str, fields: Fields, spec: ChipSpec) -> list[Access]:
    return []


RULES: dict[str, Rule] = {**tiu.RULES, **dma.RULES, "sys": _none, "dma_sys": _none}
