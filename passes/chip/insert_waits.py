"""Number the instructions and compute what each must wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from compiler.ir.core import Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import Instruction, LocalOp, LocalType, Ordered, checked_accesses
from dialects.contents import Content
from passes.chip.forms import PerForm
from passes.manager import Pass

OTHER = {"tiu": "dma", "dma": "tiu"}


@dataclass(frozen=True)
class InsertWaits(Pass):
    """chip -> chip. An instruction waits for the newest one of the other engine that it conflicts with.

    A wait is left out when an earlier one of the same engine covers it, since engines work in order. So only
    local memory is looked at: what lies in DDR is touched by the DMA alone.
    """

    name: ClassVar[str] = "insert-waits"
    takes = Content.CHIP | Content.PLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    ends = Content.UNORDERED
    leaves = Content.ORDERED

    def run(self, module: Module) -> None:
        for function in module.functions():
            insert_waits(function, target_of(module))


def insert_waits(function: Function, spec: ChipSpec) -> None:
    memory = Touched(local_offsets(function, spec), spec)
    footprint = PerForm(lambda op: footprint_of(op, spec))
    count = {"tiu": 0, "dma": 0}
    waited = {"tiu": 0, "dma": 0}
    for op in function.block.ops:
        if not isinstance(op, Instruction):
            continue
        engine = op.engine
        parts = footprint(op)
        if any(part.stop > op.operands[part.operand].type.bytes for part in parts):
            checked_accesses(op, spec)  # says what is wrong; a form is only checked for the first of its ops
        count[engine] += 1
        wait = memory.newest_conflict(op, parts, OTHER[engine])
        is_covered = wait <= waited[engine]
        op.attributes = Ordered(op.attributes, count[engine], 0 if is_covered else wait)
        waited[engine] = max(wait, waited[engine])
        memory.record(op, parts, engine, count[engine])


def local_offsets(function: Function, spec: ChipSpec) -> dict[Value, int]:
    """Where each local buffer lies; CompileError when one ends beyond its lane."""
    found = {}
    for op in function.block.ops:
        if isinstance(op, LocalOp):
            assert op.offset is not None, "local buffers have no offsets yet"
            if op.offset + op.buffer.type.bytes > spec.lane_bytes:
                op.fail(f"ends beyond the {spec.lane_bytes} bytes of a lane")
            found[op.buffer] = op.offset
    return found


class Part(NamedTuple):
    """Bytes [start, stop) of one of an instruction's local operands."""

    operand: int
    write: bool
    start: int
    stop: int


def footprint_of(op: Instruction, spec: ChipSpec) -> list[Part]:
    return [
        Part(op.operands.index(access.buffer), access.write, access.start, access.stop)
        for access in checked_accesses(op, spec)
        if isinstance(access.buffer.type, LocalType)
    ]


class Touched:
    """The id of each engine's last access and last write of every cell of local memory.

    A cell is one EU width of all lanes; lanes are not told apart, which can only add waits.
    """

    def __init__(self, offsets: Mapping[Value, int], spec: ChipSpec) -> None:
        self.offsets = offsets
        self.cell = spec.eu_bytes
        cells = spec.lane_bytes // self.cell
        self.written, self.touched = (
            {engine: np.zeros(cells, np.int64) for engine in OTHER} for _ in range(2)
        )

    def newest_conflict(self, op: Instruction, parts: Sequence[Part], engine: str) -> int:
        """The highest id of that engine's instructions that must not overlap with this one; 0 if none."""
        newest = 0
        for part in parts:
            ids = (self.touched if part.write else self.written)[engine]
            newest = max(newest, int(ids[self._cells(op, part)].max()))
        return newest

    def record(self, op: Instruction, parts: Sequence[Part], engine: str, number: int) -> None:
        for part in parts:
            cells = self._cells(op, part)
            self.touched[engine][cells] = number
            if part.write:
                self.written[engine][cells] = number

    def _cells(self, op: Instruction, part: Part) -> slice:
        offset = self.offsets[op.operands[part.operand]]
        return slice((offset + part.start) // self.cell, -(-(offset + part.stop) // self.cell))
