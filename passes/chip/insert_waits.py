"""Number the instructions and compute what each must wait for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.ir.core import Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import Access, GlobalType, Instruction, LocalOp, checked_accesses
from dialects.contents import Content
from passes.manager import Pass

OTHER = {"tiu": "dma", "dma": "tiu"}


@dataclass(frozen=True)
class InsertWaits(Pass):
    """chip -> chip. An instruction waits for the newest one of the other engine that it conflicts with.

    A wait is left out when an earlier one of the same engine covers it, since engines work in order.
    """

    name: ClassVar[str] = "insert-waits"
    takes = Content.CHIP | Content.PLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    ends = Content.UNORDERED
    leaves = Content.ORDERED

    def run(self, module: Module) -> None:
        for function in module.functions():
            insert_waits(function, target_of(module))


def insert_waits(function: Function, spec: ChipSpec) -> None:
    check_offsets(function, spec)
    memory = Touched(spec)
    count = {"tiu": 0, "dma": 0}
    waited = {"tiu": 0, "dma": 0}
    for op in function.block.ops:
        if not isinstance(op, Instruction):
            continue
        engine = op.engine
        count[engine] += 1
        accesses = checked_accesses(op, spec)
        wait = max(memory.newest_conflict(access, OTHER[engine]) for access in accesses)
        op.attributes["chip.id"] = count[engine]
        if wait > waited[engine]:
            op.attributes["chip.wait"] = waited[engine] = wait
        for access in accesses:
            memory.record(access, engine, count[engine])


def check_offsets(function: Function, spec: ChipSpec) -> None:
    for op in function.block.ops:
        if isinstance(op, LocalOp) and (op.offset or 0) + op.buffer.type.bytes > spec.lane_bytes:
            op.fail(f"ends beyond the {spec.lane_bytes} bytes of a lane")


class Touched:
    """The id of each engine's last read and last write of every cell of memory.

    A cell is one EU width of all lanes; lanes are not told apart, which can only add waits. DDR regions are
    recorded access by access, since few are ever written.
    """

    def __init__(self, spec: ChipSpec):
        self.cell = spec.eu_bytes
        cells = spec.lane_bytes // self.cell
        self.local = {
            (engine, write): np.zeros(cells, np.int64) for engine in OTHER for write in (False, True)
        }
        self.ddr: dict[tuple[str, Value], list[tuple[Access, int]]] = {}

    def newest_conflict(self, access: Access, engine: str) -> int:
        """The highest id of that engine's instructions that must not overlap with `access`; 0 if none."""
        if isinstance(access.buffer.type, GlobalType):
            earlier = self.ddr.get((engine, access.buffer), ())
            return max((number for other, number in earlier if other.conflicts(access)), default=0)
        cells = self._cells(access)
        newest = self.local[engine, True][cells].max()
        if access.write:
            newest = max(newest, self.local[engine, False][cells].max())
        return int(newest)

    def record(self, access: Access, engine: str, number: int) -> None:
        if isinstance(access.buffer.type, GlobalType):
            self.ddr.setdefault((engine, access.buffer), []).append((access, number))
        else:
            self.local[engine, access.write][self._cells(access)] = number

    def _cells(self, access: Access) -> slice:
        owner = access.buffer.owner
        assert isinstance(owner, LocalOp)
        assert owner.offset is not None, "local buffers have no offsets yet"
        start, stop = owner.offset + access.start, owner.offset + access.stop
        return slice(start // self.cell, -(-stop // self.cell))
