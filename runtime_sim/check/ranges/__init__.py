"""Which bytes an instruction reads and writes, from its fields alone.

A range is never too small; it may be too large where exactness costs more than it gives. Local memory is
lanes x bytes, so a range is a list of boxes: every lane of an interval, the same bytes in each. Global memory
(DDR and on-chip SRAM, seen by the DMA only) is one lane of absolute addresses. Items are counted in nibbles
in this folder, because BM1688 has 4-bit ones.
"""

from __future__ import annotations

from typing import TypeAlias

from compiler.target.isa import Instruction, PerBody
from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges import dma, tiu
from runtime_sim.check.ranges.boxes import Access, Box, Fields, Rule, Tensor, lane_groups, local_boxes
from runtime_sim.check.ranges.dma import local_address

__all__ = [
    "Access",
    "Box",
    "Ranges",
    "Tensor",
    "accesses",
    "lane_groups",
    "local_address",
    "local_boxes",
    "ranges_on",
]

Ranges: TypeAlias = PerBody[list[Access]]


def ranges_on(spec: ChipSpec) -> Ranges:
    """The `accesses` of instructions of a chip."""
    return PerBody(lambda instruction: accesses(instruction, spec))


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
