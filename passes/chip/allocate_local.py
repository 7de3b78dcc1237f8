"""Give every local buffer an offset in the lane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from compiler.chips import ChipSpec, chip
from compiler.diagnostics import CompileError
from compiler.ir.core import Function, Module, Value
from compiler.pass_manager import Pass
from dialects.chip import DmaOp, Instruction, LocalOp


@dataclass(frozen=True)
class AllocateLocal(Pass):
    """chip -> chip. Buffers whose uses overlap in program order get disjoint bytes, in order of first use."""

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
    loaded: bool  # its first access is a DMA's

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
            life = found.setdefault(value, Life(owner, position, position, isinstance(op, DmaOp)))
            life.last = position
    return list(found.values())


def allocate(function: Function, spec: ChipSpec) -> None:
    """Loaded data goes to the high end of memory, the rest to the low end.

    Loads come and go in order and live long when hoisted; results are short-lived. Kept apart, neither leaves
    holes among the other.
    """
    live: list[tuple[int, int, Life]] = []  # start, stop, life; by start
    for life in lives(function, spec):
        live = [item for item in live if item[2].last >= life.first]
        gaps = free_ranges(live, life.bytes, spec)
        if not gaps:
            refuse(function, life, live, spec)
        start = gaps[-1][1] - life.bytes if life.loaded else gaps[0][0]
        life.op.offset = start
        live.append((start, start + life.bytes, life))
        live.sort(key=lambda item: item[0])


def free_ranges(live: list[tuple[int, int, Life]], size: int, spec: ChipSpec) -> list[tuple[int, int]]:
    """The free ranges [start, stop) of at least `size` bytes, between the live ones; buffers are whole EU
    widths.
    """
    ends = [0, *(stop for _, stop, _ in live)]
    starts = [*(start for start, _, _ in live), spec.lane_bytes]
    return [(start, stop) for start, stop in zip(ends, starts, strict=True) if stop - start >= size]


class DoesNotFit(CompileError):
    """Local memory is too small for what is alive at one point of the program."""


def refuse(function: Function, life: Life, live: list[tuple[int, int, Life]], spec: ChipSpec) -> NoReturn:
    taken = sum(other.bytes for _, _, other in live)
    raise DoesNotFit(
        f"{function.sym_name} needs {taken + life.bytes} bytes of local memory per lane at one point, "
        f"in pieces that do not fit the {spec.lane_bytes} of {spec.name}",
        life.op.loc,
        op=life.op,
    )
