"""Give every local buffer an offset in the lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np

from compiler.diagnostics import CompileError
from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import DmaOp, LocalOp
from dialects.contents import Content
from passes.chip.banks import Banks
from passes.chip.lives import Life, live_bytes, lives, shortest
from passes.chip.pace import Pace
from passes.chip.packing import Packing, Taken, TakenRange, free_ranges
from passes.chip.reorder import reorder
from passes.manager import Pass

ATTEMPTS = 6  # at packing in program order


@dataclass(frozen=True)
class AllocateLocal(Pass):
    """chip -> chip. Buffers whose uses overlap in program order get disjoint bytes, in order of first use.

    Where that leaves no room for one, those as large come first; failing that, all go by size. Loads for
    which there is no room where they are go down the program. Buffers that nothing uses go. What does not fit
    may do so with fewer loads ahead; see the pass hoist-loads.
    """

    name: ClassVar[str] = "allocate-local"
    takes = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.ADDRESSED | Content.UNORDERED
    ends = Content.UNPLACED
    leaves = Content.PLACED
    changes = (LocalOp,)

    def run(self, module: Module) -> None:
        for function in module.functions():
            erase_unused(function)
            allocate(function, target_of(module))


def erase_unused(function: Function) -> None:
    for op in function.block.ops.listed():
        if isinstance(op, LocalOp) and op.is_dead():
            op.erase()


def allocate(function: Function, spec: ChipSpec) -> None:
    *ops, _ = function.block.ops.listed()
    found = lives(ops, spec)
    if packing := packed(ops, found, spec):
        return place(function, found, packing.starts, packing.places)
    if starts := largest_first(found, len(ops), spec):
        return place(function, found, starts, {index: life.first for index, life in enumerate(found)})
    refuse(function, live_bytes(shortest(found), len(ops)), spec)


def packed(ops: Sequence[Op], found: Sequence[Life], spec: ChipSpec) -> Packing | None:
    """In program order. Where something finds no room so, all that is as large has its place first; the next
    time all that is half as large, and so on.
    """
    stored, banks = on_their_way(ops, spec), Banks(ops, spec)
    fixed: Mapping[int, int] = {}
    for attempt in range(ATTEMPTS):
        packing = Packing(found, stored, banks, spec, fixed)
        if packing.run():
            return packing
        least = found[packing.failed].bytes >> attempt
        large = [index for index, life in enumerate(found) if life.bytes >= least]
        starts = largest_first([found[index] for index in large], len(ops), spec)
        if not starts:
            return None
        fixed = {index: starts[number] for number, index in enumerate(large)}
    return None


def on_their_way(ops: Sequence[Op], spec: ChipSpec) -> dict[Value, int]:
    """Up to where in the program each stored buffer is on its way to DDR: where compute is by then.

    A result that takes its place before would have to wait for it.
    """
    pace = Pace(ops, spec)
    ends: dict[Value, float] = {}
    for position, op in enumerate(ops):
        if isinstance(op, DmaOp):
            pace.issue(position, position)
            ends |= dict.fromkeys(op.operands[1:], pace.dma_free)
    return {value: pace.position_at(end) for value, end in ends.items()}


def largest_first(found: Sequence[Life], length: int, spec: ChipSpec) -> dict[int, int]:
    """Each life at the lowest start free for all its time, the largest first: slower, and tighter.

    Empty when that does not fit either. The program is of `length` ops.
    """
    if live_bytes(found, length).max() > spec.lane_bytes:
        return {}
    starts: dict[int, int] = {}
    taken = Taken()
    for index in sorted(range(len(found)), key=lambda index: (-found[index].bytes, found[index].first)):
        life = found[index]
        start, _ = next(free_ranges(taken.during(life.first, life.last), life.bytes, spec), (None, None))
        if start is None:
            return {}
        starts[index] = start
        taken.add(TakenRange(start, start + life.bytes, life.first, life.last))
    return starts


def place(
    function: Function, found: Sequence[Life], starts: Mapping[int, int], places: Mapping[int, int]
) -> None:
    """Give each buffer its offset, and issue its loads no earlier than where it has its room."""
    later: dict[int, int] = {}
    attributes = {start: {"offset": start} for start in starts.values()}
    for index, life in enumerate(found):
        life.op.attributes = attributes[starts[index]]
        later |= {load: places[index] for load in life.loads if load < places[index]}
    if later:
        reorder(function, lambda position: (later.get(position, position), position not in later))


class DoesNotFit(CompileError):
    """Local memory is too small for what is alive at one point of the program."""


def require_room(function: Function, live: np.ndarray, spec: ChipSpec) -> None:
    """DoesNotFit when more bytes are alive at some position than there are, however they are placed."""
    if live.max() > spec.lane_bytes:
        refuse(function, live, spec)


def refuse(function: Function, live: np.ndarray, spec: ChipSpec) -> NoReturn:
    """DoesNotFit, of the bytes that are alive at each position at the least."""
    position = int(live.argmax())
    op = function.block.ops.listed()[position]
    raise DoesNotFit(
        f"{function.sym_name} needs {live[position]} bytes of local memory per lane at one point, "
        f"in pieces that do not fit the {spec.lane_bytes} of {spec.name}",
        op.loc,
        op=op,
    )
