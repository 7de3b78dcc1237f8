"""A core that executes instructions, one at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.machine.core import Core, chip_memory
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import flush_denormals
from runtime_sim.machine.instructions import PREPARE
from runtime_sim.machine.instructions.operands import Plan
from runtime_sim.machine.memory import FlatMemory, LocalMemory

PLANS_KEPT = 1 << 16  # prepared instructions kept for the next time the same object is executed


class Machine(Core):
    """Executes instructions on modelled memories, bit for bit as the vendor's C-model does.

    lane_bytes: local memory of a lane, when it is not the chip's. Programs whose buffers have no addresses
        yet run on lanes as large as they like; a local address is always lane * lane_bytes + offset.
    exact: whether MM2 sums in the chip's order, digits cut off included. With False it uses the host's f32
        matrix multiplication, which is faster and differs by the rounding of a sum; all else stays exact.
    ddr: the machine's DDR and L2; pass one to share it between the cores of a chip.
    local: its local memory; pass one to keep its contents from one machine to the next.
    """

    def __init__(
        self,
        spec: ChipSpec,
        *,
        lane_bytes: int | None = None,
        exact: bool = True,
        ddr: FlatMemory | None = None,
        local: LocalMemory | None = None,
    ) -> None:
        local = local or LocalMemory(spec.lanes, lane_bytes or spec.lane_bytes)
        super().__init__(spec, local, ddr or chip_memory(spec), exact)
        self._plans: dict[int, tuple[Instruction, Plan]] = {}

    def execute(self, instruction: Instruction) -> None:
        """Execute one instruction; waits are the caller's affair."""
        with flush_denormals(), np.errstate(all="ignore"):
            self._execute(instruction)

    def run(self, instructions: Iterable[Instruction]) -> None:
        """Execute instructions one after the other, in the order given."""
        with flush_denormals(), np.errstate(all="ignore"):
            for instruction in instructions:
                self._execute(instruction)

    def _execute(self, instruction: Instruction) -> None:
        known = self._plans.get(id(instruction))
        if known is None:
            known = self._prepare(instruction)
        known[1]()

    def _prepare(self, instruction: Instruction) -> tuple[Instruction, Plan]:
        """Make the plan of an instruction, and keep it with the instruction itself, whose id is the key."""
        prepare = PREPARE.get(instruction.name)
        if prepare is None:
            raise SimulationError(f"{instruction.name}.{instruction.kind} is not modelled")
        try:
            plan = prepare(self, instruction)
        except SimulationError as error:
            raise SimulationError(f"{error}\n  in {instruction}") from None
        if len(self._plans) >= PLANS_KEPT:
            self._plans.clear()
        entry = (instruction, plan)
        self._plans[id(instruction)] = entry
        return entry
