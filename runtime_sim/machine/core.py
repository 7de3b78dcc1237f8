"""One core of a chip as an instruction sees it: the chip's numbers, and the memories that it can name."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Bytes
from runtime_sim.machine.memory import FlatMemory, LocalMemory
from runtime_sim.machine.static_memory import static_table


@dataclass(eq=False)
class Core:
    """Instructions are prepared for a core, and read and write its memories; a `Machine` executes them."""

    spec: ChipSpec
    local: LocalMemory
    ddr: FlatMemory  # and the L2, which cores share too
    exact: bool  # whether MM2 sums in the chip's order, digits cut off included
    static: Bytes = field(init=False)  # see `static_memory`

    def __post_init__(self) -> None:
        self.static = static_table(self.spec)

    def locate(self, address: int) -> tuple[LocalMemory | FlatMemory, int]:
        """The memory that a DMA address means, and the address within it."""
        local = address - self.spec.dma_local_base
        if 0 <= local < len(self.local.bytes):
            return self.local, local
        return self.ddr, address


def chip_memory(spec: ChipSpec) -> FlatMemory:
    """The flat memory of a chip: its L2; DDR regions are mapped by whoever has something to put there."""
    memory = FlatMemory()
    memory.map(spec.l2_base, np.zeros(spec.l2_bytes, np.uint8), "L2")
    return memory
