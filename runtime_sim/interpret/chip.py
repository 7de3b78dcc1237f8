"""Run functions of the chip dialect, at the addresses they have or before they have any.

Instructions run one after the other in the order of the program, which is what every later order must
compute too. A buffer without an address gets a place of its own, so a program computes what its values say
even if its buffers could never fit the chip; a difference between a run before and a run after allocation is
the allocation's fault.

The functions of several cores run on as many machines with one DDR, in lockstep: each as far as its next wait
for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import Attribute
from compiler.sizes import round_up
from compiler.target.isa import Instruction, isa_for
from compiler.target.spec import ChipSpec
from dialects import chip
from dialects.chip import GlobalOp, GlobalType, LocalOp, Placement, Shape4, View
from runtime_sim.launch.runtime import DDR_POISON
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from runtime_sim.machine.memory import FlatMemory, split_channels

PAGE = 4096  # DDR regions without an address lie on pages of their own, with one between them

WeightBytes = Callable[[Attribute], np.ndarray]  # the content of a coefficient region, by its source
Observe = Callable[[Op, np.ndarray], None]  # told of each instruction, and of the items it wrote


class ChipProgram:
    """One function with its memories. `exact`: see `runtime_sim.machine.machine.Machine`.

    Of a core that runs `beside` others, DDR is theirs: the same inputs, outputs, weights and shared regions.
    """

    def __init__(
        self,
        function: Function,
        spec: ChipSpec,
        weights: WeightBytes | None = None,
        exact: bool = True,
        beside: ChipProgram | None = None,
    ) -> None:
        self.spec = spec
        self._known: dict[Hashable, tuple[int, np.ndarray]] = beside._known if beside else {}
        self.ops = [op for op in function.block.ops if isinstance(op, chip.Instruction)]
        self.globals = [op for op in function.block.ops if isinstance(op, GlobalOp)]
        self._addresses = self._place_globals()
        lane_bytes = self._place_locals(spec.lane_bytes)
        ddr: FlatMemory | None = beside.machine.ddr if beside else None
        self.machine: Machine = Machine(spec, lane_bytes=lane_bytes, exact=exact, ddr=ddr)
        self.placement = Placement(spec, self._addresses.__getitem__, lane_bytes)
        self.regions = {op.buffer: self._map(op, weights) for op in self.globals}

    def _place_locals(self, lane_bytes: int) -> int:
        """Give every local buffer in use an address; returns the bytes of a lane."""
        used = dict.fromkeys(value for op in self.ops for value in op.operands)
        found = [value.owner for value in used if isinstance(value.owner, LocalOp)]
        if all(op.offset is not None for op in found):
            self._addresses |= {op.buffer: op.offset for op in found if op.offset is not None}
            return lane_bytes
        end = 0
        for op in found:
            self._addresses[op.buffer] = end
            end = round_up(end + op.buffer.type.bytes, self.spec.eu_bytes)
        if self.spec.dma_local_base + end * self.spec.lanes > self.spec.ddr_base:
            raise SimulationError(f"local buffers of {end} bytes per lane reach into the addresses of DDR")
        return round_up(max(end, lane_bytes), PAGE)

    def _place_globals(self) -> dict[Value, int]:
        if all(op.address is not None for op in self.globals):
            return {op.buffer: op.address for op in self.globals if op.address is not None}
        ends = (address + data.size for address, data in self._known.values())
        addresses, end = {}, round_up(max(ends, default=self.spec.ddr_base), PAGE) + PAGE
        for op in self.globals:
            if known := self._known.get(meant_by(op)):
                addresses[op.buffer] = known[0]
                continue
            addresses[op.buffer] = end
            end = round_up(end + op.buffer.type.bytes, PAGE) + PAGE
        return addresses

    def _map(self, op: GlobalOp, weights: WeightBytes | None) -> np.ndarray:
        """A region's bytes, mapped at its address, once for all cores that mean it."""
        address, key = self._addresses[op.buffer], meant_by(op)
        if known := self._known.get(key):
            if (address, op.buffer.type.bytes) != (known[0], known[1].size):
                raise SimulationError(f"cores disagree on where {op} lies, or how large it is")
            return known[1]
        data = np.full(op.buffer.type.bytes, DDR_POISON, np.uint8)
        if op.space == "weight":
            if weights is None or op.source is None:
                raise SimulationError(f"nothing says what {op} holds")
            data[...] = np.ascontiguousarray(weights(op.source)).view(np.uint8).reshape(-1)
        self.machine.ddr.map(address, data, op.space)
        self._known[key] = address, data
        return data

    def run(self, inputs: Sequence[np.ndarray], observe: Observe | None = None) -> list[np.ndarray]:
        """The outputs in the order of the net's signature. Types and shapes of inputs are the IR's."""
        return run_cores([self], inputs, observe)

    def steps(self, observe: Observe | None) -> Iterator[None]:
        """Run, with a break behind each wait for other cores."""
        for ops in self._legs():
            self.machine.run(self._instructions(ops, observe))
            yield

    def _legs(self) -> Iterator[list[chip.Instruction]]:
        leg: list[chip.Instruction] = []
        for op in self.ops:
            leg.append(op)
            if isinstance(op, chip.WaitOp):
                yield leg
                leg = []
        yield leg

    def _instructions(
        self, ops: Sequence[chip.Instruction], observe: Observe | None
    ) -> Iterator[Instruction]:
        for op in ops:
            yield self.instruction(op)
            if observe is not None and not isinstance(op, chip.MessageOp):
                observe(op, self.read(*op.written()))

    def instruction(self, op: chip.Instruction) -> Instruction:
        """The instruction with every field, as decoding it would give; ids and waits play no part."""
        layout = isa_for(self.spec).layout(op.family)
        fields = dict.fromkeys(layout.fields, 0) | layout.filled(op.fields(self.placement))
        return Instruction(op.family, op.isa_kind(), fields)

    def typed(self, op: GlobalOp) -> np.ndarray:
        assert op.tensor is not None, f"{op} does not say what the client sees"
        return self.regions[op.buffer].view(op.tensor.element.numpy).reshape(op.tensor.shape)

    def read(self, buffer: Value, view: View, shape: Shape4) -> np.ndarray:
        """A copy of the items (n, c, h, w) that a view of a buffer shows."""
        dtype = view.dtype.numpy
        strides = view.strides or chip.default_strides(buffer, view, shape, self.spec)
        if isinstance(buffer.type, GlobalType):
            return self.machine.ddr.view(self.placement.dma(buffer, view), shape, strides, dtype).copy()
        address = self.placement.tiu(buffer, view)
        pieces = self.machine.local.pieces(address, shape, strides, dtype)
        grids = split_channels(view.lane, shape[1], self.spec.lanes)
        out = np.empty(shape, dtype)
        for grid, piece in zip(grids, pieces, strict=True):
            n, slots, lanes, h, w = piece.shape
            out[:, grid.start : grid.stop] = piece.reshape(n, slots * lanes, h, w)
        return out


def meant_by(op: GlobalOp) -> Hashable:
    """What regions of several functions have in common that are one; scratch is of one function alone."""
    if op.space == "scratch":
        return op
    return op.space, op.source if op.space == "weight" else op.index or 0


def run_cores(
    programs: Sequence[ChipProgram], inputs: Sequence[np.ndarray], observe: Observe | None = None
) -> list[np.ndarray]:
    """`ChipProgram.run` of a program for each core, all with one DDR."""
    for (op, array), given in zip(signature(programs, "input"), inputs, strict=True):
        if given.shape != array.shape or given.dtype != array.dtype:
            raise SimulationError(f"{given.dtype} {list(given.shape)} given for {op.tensor}")
        array[...] = given
    running = [program.steps(observe) for program in programs]
    while running:
        running = [each for each in running if next(each, each) is not each]
    return [array.copy() for _, array in signature(programs, "output")]


def signature(programs: Sequence[ChipProgram], space: str) -> list[tuple[GlobalOp, np.ndarray]]:
    """The inputs or outputs that any of the cores knows, in order."""
    found = {
        op.index or 0: (op, program.typed(op))
        for program in programs
        for op in program.globals
        if op.space == space
    }
    return [found[index] for index in sorted(found)]


def core_programs(
    functions: Sequence[Function], spec: ChipSpec, weights: WeightBytes | None = None, exact: bool = True
) -> list[ChipProgram]:
    """Programs of the cores of a chip, which share its DDR."""
    programs: list[ChipProgram] = []
    for function in functions:
        programs.append(ChipProgram(function, spec, weights, exact, programs[0] if programs else None))
    return programs


def run_function(
    function: Function,
    spec: ChipSpec,
    inputs: Sequence[np.ndarray],
    weights: WeightBytes | None = None,
    *,
    exact: bool = True,
    observe: Observe | None = None,
) -> list[np.ndarray]:
    """Run a function once; see `ChipProgram`."""
    return ChipProgram(function, spec, weights, exact).run(inputs, observe)
