"""Nets, memories and launches: what Sophgo's runtime (libbmrt) does with one file, on the simulated chip.

Memories, as a client that sets BM_RUNTIME_SHARE_MEM gets them:
- weights: one copy of each blob, straight from the mapped file;
- neuron memory: one for all nets, as large as the largest needs; whatever a launch leaves there, the next
  launch of any net may overwrite. Inputs and outputs of nets in basic mode lie in it;
- I/O memory of their own for nets in mode io_alone, all stages of one in the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from compiler.bmodel import AddrMode, BModel, Coeff, TensorInfo
from compiler.diagnostics import CompileError, UserError
from runtime_sim.arrays import Array, Bytes, DType
from runtime_sim.launch.loader import Program, Region, StageProgram, io_bytes, stage_names
from runtime_sim.launch.queues import Choose, Deadlock, Step, alternating, run_order
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from runtime_sim.machine.memory import FlatMemory, LocalMemory

NUMPY_TYPES: dict[str, DType] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "i8": np.dtype(np.int8),
    "ui8": np.dtype(np.uint8),
    "i16": np.dtype(np.int16),
    "ui16": np.dtype(np.uint16),
    "i32": np.dtype(np.int32),
    "ui32": np.dtype(np.uint32),
}
DDR_POISON = 0xA5  # what memory holds before anything is written: neither zeros nor NaNs, which hide mistakes
POISONED_BYTES = 1 << 28  # of one memory; a larger one is left as the system gives it


@dataclass(frozen=True, eq=False)
class Buffer:
    """An input or output of a net, and where it lives: `data` are its bytes, a view of the memory."""

    info: TensorInfo
    data: Bytes

    @property
    def array(self) -> Array:
        """The buffer with its type and shape; writing to it writes the memory."""
        return self.data.view(NUMPY_TYPES[self.info.dtype]).reshape(self.info.shape)


class RuntimeNet:
    """A stage of a net of the file in its memories.

    It has machines of its own so that they keep what they prepared for its instructions and addresses;
    their local memory is the one of all nets.
    """

    def __init__(
        self, program: StageProgram, memories: dict[Region, Bytes], machines: Sequence[Machine]
    ) -> None:
        self.program = program
        self.memories = memories
        self.machines = machines
        self.inputs = [self._buffer(info) for info in program.stage.inputs]
        self.outputs = [self._buffer(info) for info in program.stage.outputs]

    @property
    def name(self) -> str:
        return self.program.name

    def takes(self, inputs: Mapping[str, Array]) -> bool:
        """Whether there is one of the right shape for each of its inputs."""
        infos = [buffer.info for buffer in self.inputs]
        return all(info.name in inputs and inputs[info.name].shape == info.shape for info in infos)

    @cached_property
    def usual_order(self) -> list[Step]:
        """One of the orders that the waits permit, the same at each launch."""
        return list(run_order(self.program.cores, alternating()))

    def _buffer(self, info: TensorInfo) -> Buffer:
        address = self.program.dma_address(info)
        span = self.program.span_of(address)
        if span is None or address + info.size > span.end or span.region is Region.COEFF:
            raise UserError(
                f"net {self.name}: {info.name} is at {info.address:#x}, outside the net's memories"
            )
        if info.dtype not in NUMPY_TYPES:
            raise UserError(f"net {self.name} cannot be run here: {info.name} is {info.dtype}")
        start = address - span.start
        return Buffer(info, self.memories[span.region][start : start + info.size])


class Runtime:
    """One file, loaded. `exact` computes matrix products as the chip does, bit for bit, and is slower."""

    def __init__(self, bmodel: BModel, exact: bool = True) -> None:
        self.program = Program(bmodel)
        self.exact = exact
        spec = self.program.spec
        self._locals = [LocalMemory(spec.lanes, spec.lane_bytes) for _ in range(spec.cores)]
        self._l2 = np.zeros(spec.l2_bytes, np.uint8)
        sizes = [stage.ctx_size for net in bmodel.nets for stage in net.stages]
        self._neuron = device_memory(max(sizes, default=0))
        self._blobs: dict[tuple[bytes, int], Bytes] = {}
        self._io: dict[str, Bytes] = {}
        self._nets: dict[str, RuntimeNet] = {}

    def net(self, name: str) -> RuntimeNet:
        """A net, which is its first stage, or another of its stages by its name: see `loader.stage_names`."""
        if name not in self._nets:
            self._nets[name] = self._place(self.program.stage(name))
        return self._nets[name]

    def stages(self, name: str) -> list[RuntimeNet]:
        """All stages of a net."""
        net, _ = self.program.find(name)
        return [self.net(each) for each in stage_names(net)]

    def stage_for(self, name: str, inputs: Mapping[str, Array]) -> RuntimeNet:
        """The stage of a net that is launched with such inputs: by their shapes; the first when none fits."""
        stages = self.stages(name)
        return next((stage for stage in stages if stage.takes(inputs)), stages[0])

    def has_net(self, name: str) -> bool:
        return any(name in stage_names(net) for net in self.program.bmodel.nets)

    def _place(self, program: StageProgram) -> RuntimeNet:
        if len(program.cores) > len(self._locals):
            raise UserError(
                f"net {program.name} wants {len(program.cores)} cores; the chip has {len(self._locals)}"
            )
        if program.mode not in (AddrMode.BASIC, AddrMode.IO_ALONE):
            raise UserError(f"net {program.name} cannot be run here: its addr_mode is {program.mode.name}")
        memories = {Region.NEURON: self._neuron[: program.stage.ctx_size]}
        if program.stage.io_size:
            memories[Region.IO] = self._io_of(program)[: program.stage.io_size]
        if program.stage.coeff:
            memories[Region.COEFF] = self._upload(program.stage.coeff)
        return RuntimeNet(program, memories, self._machines(program, memories))

    def _io_of(self, program: StageProgram) -> Bytes:
        """A net's own memory for inputs and outputs."""
        net, _ = self.program.find(program.name)
        if net.name not in self._io:
            self._io[net.name] = device_memory(io_bytes(net))
        return self._io[net.name]

    def _machines(self, program: StageProgram, memories: dict[Region, Bytes]) -> list[Machine]:
        ddr = FlatMemory()
        ddr.map(program.spec.l2_base, self._l2, "L2")
        for span in program.spans:
            try:
                ddr.map(span.start, memories[span.region], f"{span.region.value} of {program.name}")
            except ValueError as error:
                raise UserError(f"net {program.name}: the memories of the net overlap: {error}") from None
        locals_ = self._locals[: len(program.cores)]
        return [Machine(program.spec, exact=self.exact, ddr=ddr, local=local) for local in locals_]

    def _upload(self, coeff: Coeff) -> Bytes:
        """The blob's bytes; blobs of equal check code and size are one."""
        key = (coeff.check_code or bytes(str(id(coeff.blob)), "ascii"), coeff.size)
        if key not in self._blobs:
            data = getattr(coeff.blob, "data", None)
            whole = data if data is not None else b"".join(bytes(chunk) for chunk in coeff.blob.chunks())
            self._blobs[key] = np.frombuffer(whole, np.uint8)
        return self._blobs[key]

    def run(
        self, name: str, inputs: Mapping[str, Array], order: Choose | None = None
    ) -> dict[str, Array]:
        """Copy the inputs in, launch, copy the outputs out. Types and shapes must be those of the file."""
        net = self.stage_for(name, inputs)
        for buffer in net.inputs:
            buffer.array[...] = checked_input(net, buffer.info, inputs)
        self.launch(net, order=order)
        return {buffer.info.name: buffer.array.copy() for buffer in net.outputs}

    def launch(
        self,
        net: RuntimeNet,
        inputs: Sequence[Bytes] | None = None,
        outputs: Sequence[Bytes] | None = None,
        order: Choose | None = None,
    ) -> None:
        """Run the program. Bytes given as inputs or outputs are copied, the net's own buffers are not."""
        for buffer, given in zip(net.inputs, inputs or [], strict=bool(inputs)):
            _copy(buffer.data, given)
        self._execute(net, order)
        for buffer, given in zip(net.outputs, outputs or [], strict=bool(outputs)):
            _copy(given, buffer.data)

    def _execute(self, net: RuntimeNet, order: Choose | None) -> None:
        try:
            steps = run_order(net.program.cores, order) if order else net.usual_order
            if len(net.machines) == 1:
                net.machines[0].run(step.instruction for step in steps)
            else:
                for step in steps:
                    net.machines[step.core].execute(step.instruction)
        except SimulationError as error:
            raise CompileError(f"net {net.name}: {error}") from error
        except ValueError as error:  # numpy's, of operands whose shapes do not go together
            raise CompileError(f"net {net.name}: an instruction cannot be executed: {error}") from error
        except Deadlock as deadlock:
            raise CompileError(f"net {net.name} never ends: {deadlock}") from None


def device_memory(size: int) -> Bytes:
    """Bytes as they are before anything is written; zero where there are too many to touch them all."""
    return np.full(size, DDR_POISON, np.uint8) if size <= POISONED_BYTES else np.zeros(size, np.uint8)


def checked_input(net: RuntimeNet, info: TensorInfo, inputs: Mapping[str, Array]) -> Array:
    """The array for an input; UserError when it is missing or not of the file's shape and type."""
    if info.name not in inputs:
        raise UserError(f"net {net.name} needs an input '{info.name}' of {info.dtype} {list(info.shape)}")
    array = inputs[info.name]
    if array.shape != info.shape or array.dtype != NUMPY_TYPES[info.dtype]:
        wanted = f"{info.dtype} {list(info.shape)}"
        raise UserError(
            f"input '{info.name}' is {array.dtype} {list(array.shape)}, net {net.name} needs {wanted}"
        )
    return array


def _copy(target: Bytes, source: Bytes) -> None:
    """Bytes from one memory to another; a buffer onto itself stays as it is."""
    if target.ctypes.data != source.ctypes.data:
        target[...] = source
