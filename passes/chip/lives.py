"""From where to where in a program its local buffers are alive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from compiler.ir.core import Op, Value
from compiler.target.spec import ChipSpec
from dialects.chip import Instruction, LocalOp, TransferOp
from passes.chip.ddr import LastTouch, commands_on, is_store, stored_regions


@dataclass
class Life:
    """A buffer, and the positions of its first and last use in the program."""

    op: LocalOp
    first: int
    last: int
    loads: list[int] = field(default_factory=list)  # that come before all other uses
    due: int = 0  # the last position in front of which these may be issued; `first` where there are none
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = self.op.results[0].type.bytes


def lives(ops: Sequence[Op], spec: ChipSpec) -> list[Life]:
    """The life of every local buffer that is used, in order of first use."""
    found: dict[Value, Life] = {}
    loading: dict[Value, Life] = {}  # those of which nothing was read yet
    for position, op in enumerate(ops):
        if not isinstance(op, Instruction):
            continue
        is_load = isinstance(op, TransferOp) and not is_store(op)
        for value in op.operands:
            life = found.get(value)
            if life is None:
                if not isinstance(value.owner, LocalOp):
                    continue
                life = found[value] = Life(value.owner, position, position, due=position)
                if is_load:
                    loading[value] = life
            life.last = position
            if value in loading:
                life.due = position
                if is_load:
                    life.loads.append(position)
                else:
                    del loading[value]
    limit_to_overwrites(found.values(), ops, spec)
    return list(found.values())


def limit_to_overwrites(found: Iterable[Life], ops: Sequence[Op], spec: ChipSpec) -> None:
    """A load must be issued in front of the first store that overwrites what it reads of DDR, by any core."""
    touched = commands_on(stored_regions(ops), ops, spec)
    later = LastTouch(access for accesses in touched.values() for access in accesses)
    limits: dict[int, int] = {}
    places = [position for position, op in enumerate(ops) if op in touched]
    for position in reversed(places):
        for access in touched[ops[position]]:
            if access.write:
                later.record(access, len(ops) - position)
            elif (newest := later.newest(access)) >= 0:
                limits[position] = len(ops) - newest
    for life in found if limits else ():
        life.due = min([life.due, *[limits[load] for load in life.loads if load in limits]])


def shortest(found: Iterable[Life]) -> list[Life]:
    """The lives if all loads were issued as late as they may be."""
    return [Life(life.op, life.due, life.last, life.loads, life.due) for life in found]


def live_bytes(found: Iterable[Life], length: int) -> np.ndarray:
    """Bytes of the buffers alive at each position of a program of this length."""
    change = [0] * (length + 1)
    for life in found:
        change[life.first] += life.bytes
        change[life.last + 1] -= life.bytes
    return np.cumsum(np.array(change[:-1], np.int64))
