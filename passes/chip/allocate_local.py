"""Give every local buffer an offset in the lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NoReturn

import numpy as np

from compiler.diagnostics import CompileError
from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import DmaOp, Instruction, LocalOp
from dialects.contents import Content
from passes.chip.banks import Banks
from passes.chip.pace import Pace
from passes.manager import Pass


@dataclass(frozen=True)
class AllocateLocal(Pass):
    """chip -> chip. Buffers whose uses overlap in program order get disjoint bytes, in order of first use.

    Those that nothing uses go.
    """

    name: ClassVar[str] = "allocate-local"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    ends = Content.UNPLACED
    leaves = Content.PLACED

    def run(self, module: Module) -> None:
        for function in module.functions():
            erase_unused(function)
            allocate(function, target_of(module))


def erase_unused(function: Function) -> None:
    for op in function.block.ops:
        if isinstance(op, LocalOp) and op.is_dead():
            op.erase()


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


def lives(function: Function) -> list[Life]:
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
    found = lives(function)
    for wanted in (outlasting_stores(function, found, spec), found):
        try:
            return in_program_order(function, wanted, spec)
        except DoesNotFit:
            continue
    largest_first(function, found, spec)


def outlasting_stores(function: Function, found: list[Life], spec: ChipSpec) -> list[Life]:
    """The lives, but of what is stored until the store is over, by when compute is somewhere else.

    A result that takes the place of data on its way to DDR would have to wait for it.
    """
    ops = list(function.block.ops)
    pace = Pace(ops, spec)
    ends: dict[Value, float] = {}
    for position, op in enumerate(ops):
        if isinstance(op, DmaOp):
            pace.issue(position, position)
            ends |= dict.fromkeys(op.operands[1:], pace.dma_free)
    last = {value: pace.position_at(end) for value, end in ends.items()}
    return [replace(life, last=max(life.last, last.get(life.op.buffer, 0))) for life in found]


def in_program_order(function: Function, found: list[Life], spec: ChipSpec) -> None:
    """Loaded data goes to the high end of memory, the rest to the low end, in a bank that suits.

    Loads come and go in order and live long when hoisted; results are short-lived. Kept apart, neither leaves
    holes among the other.
    """
    live: list[tuple[int, int, Life]] = []  # start, stop, life; by start
    banks = Banks(function.block.ops, spec)
    for life in found:
        live = [item for item in live if item[2].last >= life.first]
        gaps = free_ranges([(start, stop) for start, stop, _ in live], life.bytes, spec)
        if not gaps:
            refuse(function, life.op, life.bytes + sum(other.bytes for _, _, other in live), spec)
        life.op.offset = start = banks.best(life.op.buffer, starts(gaps, life, spec))
        live.append((start, start + life.bytes, life))
        live.sort(key=lambda item: item[0])


def starts(gaps: list[tuple[int, int]], life: Life, spec: ChipSpec) -> Iterator[int]:
    """Places for a buffer, from its end of memory on: the near end of each gap, then each bank in it."""
    bank = spec.bank_bytes
    if life.loaded:
        for start, stop in reversed(gaps):
            last = stop - life.bytes
            yield from (last, *range(last // bank * bank, start - 1, -bank))
    else:
        for start, stop in gaps:
            yield from (start, *range(-(-start // bank) * bank, stop - life.bytes + 1, bank))


def largest_first(function: Function, found: list[Life], spec: ChipSpec) -> None:
    """Each buffer at the lowest place free for all its life, the largest first: slower, and tighter."""
    order = sorted(found, key=lambda life: (-life.bytes, life.first))
    first, last, starts, stops = (np.zeros(len(order), np.int64) for _ in range(4))
    for count, life in enumerate(order):
        meets = np.flatnonzero((first[:count] <= life.last) & (last[:count] >= life.first))
        by_start = meets[np.argsort(starts[meets], kind="stable")]
        taken = list(zip(starts[by_start].tolist(), stops[by_start].tolist(), strict=True))
        gaps = free_ranges(taken, life.bytes, spec)
        if not gaps:
            refuse(function, life.op, life.bytes + int((stops - starts)[meets].sum()), spec)
        life.op.offset = gaps[0][0]
        first[count], last[count] = life.first, life.last
        starts[count], stops[count] = gaps[0][0], gaps[0][0] + life.bytes


def free_ranges(taken: list[tuple[int, int]], size: int, spec: ChipSpec) -> list[tuple[int, int]]:
    """The free ranges [start, stop) of at least `size` bytes; all are whole EU widths.

    `taken` is sorted by start, and may overlap.
    """
    free, end = [], 0
    for start, stop in [*taken, (spec.lane_bytes, spec.lane_bytes)]:
        if start - end >= size:
            free.append((end, start))
        end = max(end, stop)
    return free


class DoesNotFit(CompileError):
    """Local memory is too small for what is alive at one point of the program."""


def require_room(function: Function, live: np.ndarray, spec: ChipSpec) -> None:
    """DoesNotFit when more bytes are alive at some position than there are, however they are placed."""
    position = int(live.argmax())
    if live[position] > spec.lane_bytes:
        refuse(function, list(function.block.ops)[position], int(live[position]), spec)


def refuse(function: Function, op: Op, needed: int, spec: ChipSpec) -> NoReturn:
    raise DoesNotFit(
        f"{function.sym_name} needs {needed} bytes of local memory per lane at one point, "
        f"in pieces that do not fit the {spec.lane_bytes} of {spec.name}",
        op.loc,
        op=op,
    )
