"""Give every local buffer an offset in the lane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler.chips import ChipSpec, chip
from compiler.ir.core import Function, Module, Value
from compiler.pass_manager import Pass
from dialects.chip import Instruction, LocalOp


@dataclass(frozen=True)
class AllocateLocal(Pass):
    """chip -> chip. Buffers whose uses overlap in program order get disjoint bytes; first fit, in order of first use."""

    name: ClassVar[str] = "allocate-local"

    chip: str = "bm1684x"  # the chip whose local memory is shared out

    def run(self, module: Module) -> None:
        for function in module.functions():
            allocate(function, chip(self.chip))


@dataclass
class Life:
    """A buffer and the positions of its first and last use in the program."""

    op: LocalOp
    first: int
    last: int

    @property
    def bytes(self) -> int:
        return self.op.buffer.type.bytes


def lives(function: Function, spec: ChipSpec) -> list[Life]:
    """The life of every local buffer that is used, in order of first use."""
    found: dict[Value, Life] = {}
    for position, op in enumerate(function.block.ops):
        if not isinstance(op, Instruction):
            continue
        for value in op.operands:
            owner = value.owner
            if not isinstance(owner, LocalOp):
                continue
            life = found.setdefault(value, Life(owner, position, position))
            life.last = position
    return list(found.values())


def allocate(function: Function, spec: ChipSpec) -> None:
    live: list[tuple[int, int, Life]] = []  # start, stop, life; by start
    for life in lives(function, spec):
        live = [item for item in live if item[2].last >= life.first]
        start = lowest_gap(live, life.bytes, spec)
        if start + life.bytes > spec.lane_bytes:
            needed = start + life.bytes
            life.op.fail(
                f"does not fit: {function.sym_name} needs {needed} bytes of local memory per lane, "
                f"{spec.name} has {spec.lane_bytes}"
            )
        life.op.offset = start
        live.append((start, start + life.bytes, life))
        live.sort(key=lambda item: item[0])


def lowest_gap(live: list[tuple[int, int, Life]], size: int, spec: ChipSpec) -> int:
    """The lowest aligned start of `size` free bytes between the live ranges."""
    start = 0
    for taken, stop, _ in live:
        if taken - start >= size:
            break
        start = max(start, -(-stop // spec.eu_bytes) * spec.eu_bytes)
    return start
