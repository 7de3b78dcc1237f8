"""Number the instructions and compute what each must wait for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

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
    footprint = PerForm(footprint_of, spec)
    count = {"tiu": 0, "dma": 0}
    waited = {"tiu": 0, "dma": 0}
    for op in function.block.ops.listed():
        if not isinstance(op, Instruction):
            continue
        engine = op.engine
        count[engine] += 1
        cells = memory.cells_of(op, footprint(op))
        wait = memory.newest_conflict(cells, OTHER[engine])
        is_covered = wait <= waited[engine]
        op.attributes = Ordered(op.attributes, count[engine], 0 if is_covered else wait)
        waited[engine] = max(wait, waited[engine])
        memory.record(cells, engine, count[engine])


def local_offsets(function: Function, spec: ChipSpec) -> dict[Value, int]:
    """Where each local buffer lies; CompileError when one ends beyond its lane."""
    found = {}
    for op in function.block.ops.listed():
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


Cells: TypeAlias = Sequence[tuple[bool, slice]]


class Touched:
    """The id of each engine's last access and last write of every cell of local memory.

    A cell is one EU width of all lanes; lanes are not told apart, which can only add waits.
    """

    def __init__(self, offsets: Mapping[Value, int], spec: ChipSpec) -> None:
        self.offsets = offsets
        self.spec = spec
        self.cell = spec.eu_bytes
        cells = spec.lane_bytes // self.cell
        self.written, self.touched = (
            {engine: np.zeros(cells, np.int64) for engine in OTHER} for _ in range(2)
        )

    def cells_of(self, op: Instruction, parts: Iterable[Part]) -> Cells:
        """The cells that an instruction touches, and whether it writes to them."""
        found, buffers = [], op.operands
        for operand, write, start, stop in parts:
            buffer = buffers[operand]
            if stop > buffer.type.bytes:
                checked_accesses(op, self.spec)  # fails; the form was checked for the first of its ops only
            offset = self.offsets[buffer]
            found.append((write, slice((offset + start) // self.cell, -(-(offset + stop) // self.cell))))
        return found

    def newest_conflict(self, cells: Cells, engine: str) -> int:
        """The highest id of that engine's instructions that must not overlap with these cells; 0 if none."""
        written, touched = self.written[engine], self.touched[engine]
        newest = [np.maximum.reduce((touched if write else written)[part]) for write, part in cells]
        return int(max(newest, default=0))

    def record(self, cells: Cells, engine: str, number: int) -> None:
        written, touched = self.written[engine], self.touched[engine]
        for write, part in cells:
            touched[part] = number
            if write:
                written[part] = number
