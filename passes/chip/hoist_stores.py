"""Issue each store as soon as what it stores is there: the DMA is often idle while the program goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Op
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import Access, DmaOp, GlobalOp, Instruction, checked_accesses
from dialects.contents import Content
from passes.manager import Pass


@dataclass(frozen=True)
class HoistStores(Pass):
    """chip -> chip. Move each store to DDR up to right behind the last instruction it conflicts with."""

    name: ClassVar[str] = "hoist-stores"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED

    def run(self, module: Module) -> None:
        for function in module.functions():
            hoist_stores(function, target_of(module))


def hoist_stores(function: Function, spec: ChipSpec) -> None:
    done: list[Op] = []
    for op in list(function.block.ops):
        if isinstance(op, DmaOp) and isinstance(op.operands[0].owner, GlobalOp):
            place = after_conflicts(done, checked_accesses(op, spec), spec)
            if place < len(done):
                op.detach()
                function.block.insert_before(done[place], op)
            done.insert(place, op)
        else:
            done.append(op)


def after_conflicts(done: Sequence[Op], accesses: Sequence[Access], spec: ChipSpec) -> int:
    """How many of `done` are to stay in front of an instruction with these accesses."""
    buffers = {access.buffer for access in accesses}
    for place in reversed(range(len(done))):
        earlier = done[place]
        if not buffers.isdisjoint(earlier.results):
            return place + 1
        if buffers.isdisjoint(earlier.operands) or not isinstance(earlier, Instruction):
            continue
        if any(ours.conflicts(theirs) for theirs in earlier.accesses(spec) for ours in accesses):
            return place + 1
    return 0
