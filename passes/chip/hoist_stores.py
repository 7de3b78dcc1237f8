"""Issue each store as soon as what it stores is there: the DMA is often idle while the program goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import Access, Instruction, LocalOp, MessageOp, TransferOp, local_access
from dialects.contents import Content
from passes.chip.ddr import LastTouch, commands_on, in_ddr, is_store
from passes.chip.reorder import reorder
from passes.manager import Pass


@dataclass(frozen=True)
class HoistStores(Pass):
    """chip -> chip. Move each store to DDR up to right behind the last instruction it conflicts with."""

    name: ClassVar[str] = "hoist-stores"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    changes = ()

    def run(self, module: Module) -> None:
        for function in module.functions():
            hoist_stores(function, target_of(module))


def hoist_stores(function: Function, spec: ChipSpec) -> None:
    """Definitions of buffers, which no order binds, come first. Stores that move up behind the same op keep
    their order.
    """
    *ops, _ = function.block.ops.listed()
    places = store_places(ops, spec)
    reorder(
        function, lambda position: (isinstance(ops[position], Instruction), places.get(position, position))
    )


def store_places(ops: Sequence[Op], spec: ChipSpec) -> dict[int, int]:
    """Behind which instruction each store goes, by position; -1 for the front."""
    earlier = _Earlier(ops, spec)
    places = {}
    for position, op in enumerate(ops):
        if is_store(op):
            places[position] = earlier.newest_conflict(op)
        earlier.record(op, places.get(position, position))
    return places


class _Earlier:
    """The ops so far that stores could conflict with, by the position that each counts at."""

    def __init__(self, ops: Sequence[Op], spec: ChipSpec) -> None:
        self.spec = spec
        self._stored = {value for op in ops if is_store(op) for value in op.operands}
        self._accesses = commands_on(self._stored, ops, spec)
        ddr = [access for accesses in self._accesses.values() for access in accesses if in_ddr(access)]
        self._written, self._touched = LastTouch(ddr), LastTouch(ddr)
        # What was written of each local buffer.
        self._parts: dict[Value, list[tuple[Access, int]]] = {
            value: [] for value in self._stored if isinstance(value.owner, LocalOp)
        }

    def newest_conflict(self, store: TransferOp) -> int:
        return max(map(self._newest, self._accesses[store]))

    def _newest(self, access: Access) -> int:
        if in_ddr(access):
            return (self._touched if access.write else self._written).newest(access)
        parts = reversed(self._parts[access.buffer])
        return next((place for part, place in parts if part.conflicts(access)), -1)

    def record(self, op: Op, place: int) -> None:
        for access in self._accesses.get(op, ()):
            if in_ddr(access):
                self._touched.record(access, place)
                if access.write:
                    self._written.record(access, place)
        if not isinstance(op, Instruction) or isinstance(op, MessageOp):
            return
        if (parts := self._parts.get(op.operands[0])) is not None:
            parts.append((local_access(*op.written(), self.spec, write=True), place))
