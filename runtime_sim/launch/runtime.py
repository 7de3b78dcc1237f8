"""Nets, memories and launches: what Sophgo's runtime (libbmrt) does with one file, on the simulated chip.

Memories, as a client that sets BM_RUNTIME_SHARE_MEM gets them:
- weights: one copy of each blob, straight from the mapped file;
- neuron memory: one for all nets, as large as the largest needs; whatever a launch leaves there, the next
  launch of any net may overwrite. Inputs and outputs of nets in basic mode lie in it;
- I/O memory of their own for nets in mode io_alone, all stages of one in the same.

Each device has these for itself, and a buffer for what the steps of a cascade leave for later ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import ml_dtypes
import numpy as np

from compiler.bmodel import AddrMode, BModel, Coeff, TensorInfo
from compiler.bmodel.cascade import MainNet, Part, main_nets
from compiler.diagnostics import CompileError, UserError
from runtime_sim.arrays import Array, Bytes, DType
from runtime_sim.launch.loader import Program, Region, StageProgram, io_bytes, stage_names
from runtime_sim.launch.messages import Messages
from runtime_sim.launch.orders import alternating
from runtime_sim.launch.queues import Choose, Deadlock, Step, run_order
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
Copies = Sequence[tuple[Bytes, Bytes]]  # to the first, from the second
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


class CallableNet:
    """What a client can launch. Its inputs and outputs are the client's, those of one device after another's.

    `parts` are the nets of the file that run for it, in order.
    """

    name: str
    inputs: list[Buffer]
    outputs: list[Buffer]
    parts: list[RuntimeNet]

    def takes(self, inputs: Mapping[str, Array]) -> bool:
        """Whether there is one of the right shape for each of its inputs."""
        infos = [buffer.info for buffer in self.inputs]
        return all(info.name in inputs and inputs[info.name].shape == info.shape for info in infos)


class RuntimeNet(CallableNet):
    """A stage of a net of the file in its memories.

    It has machines of its own so that they keep what they prepared for its instructions and addresses;
    their local memory is the one of all nets.
    """

    def __init__(
        self, program: StageProgram, memories: dict[Region, Bytes], machines: Sequence[Machine]
    ) -> None:
        self.name = program.name
        self.program = program
        self.memories = memories
        self.machines = machines
        self.parts = [self]
        self.inputs = [self._buffer(info) for info in program.stage.inputs]
        self.outputs = [self._buffer(info) for info in program.stage.outputs]

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


class CascadeNet(CallableNet):
    """Nets of several devices, in steps.

    Its inputs are those of the nets that read them. Its outputs have memory that the client makes, since
    later steps work over what an earlier one leaves in the memory that all nets of a device share.

    In a step, one device runs after the other: no order of theirs may matter. What a net reads it finds by
    name, on its own device if it is there; else it is copied from another one. Source: cascade_thread_step
    of Sophgo's tpu-runtime.
    """

    def __init__(self, main: MainNet, nets: Mapping[str, RuntimeNet], buffers: Sequence[Bytes]) -> None:
        self.name = main.name
        self.steps = [[(net.device, nets[net.name]) for net in step] for step in main.steps]
        self.parts = [net for step in self.steps for _, net in step]
        self._inputs, self._outputs = main.inputs, main.outputs
        self.inputs = [_buffer_of(part, nets[part.net.name].inputs) for part in self._inputs]
        owns = [_buffer_of(part, nets[part.net.name].outputs) for part in self._outputs]
        self.outputs = [replace(each, data=device_memory(each.info.size)) for each in owns]
        places = main.hidden_places().items()
        self._hidden = {
            (name, device): buffers[device][place.start : place.stop] for (name, device), place in places
        }

    def memories(self, inputs: Sequence[Bytes], outputs: Sequence[Bytes]) -> dict[tuple[str, int], Bytes]:
        """Where everything is that has a name on a device, for a launch with these."""
        given = [*zip(self._outputs, outputs, strict=True), *zip(self._inputs, inputs, strict=True)]
        return {(part.info.name, part.net.device): data for part, data in given} | self._hidden

    def find(self, memories: Mapping[tuple[str, int], Bytes], name: str, device: int) -> Bytes:
        """UserError when no device has it."""
        if (name, device) in memories:
            return memories[name, device]
        for (each, _), data in memories.items():
            if each == name:
                return data
        raise UserError(f"net {self.name} cannot be run: device {device} needs {name}, which no step gives")


def _buffer_of(part: Part, buffers: Sequence[Buffer]) -> Buffer:
    """The buffer of an input or output of a cascade, whose name tells the device."""
    found = next(buffer for buffer in buffers if buffer.info is part.info)
    return replace(found, info=replace(part.info, name=f"{part.info.name}.{part.net.device}"))


class Device:
    """The memories of one device, and the nets that work in them."""

    def __init__(self, program: Program, number: int, exact: bool) -> None:
        self.program = program
        self.exact = exact
        spec = program.spec
        self._locals = [LocalMemory(spec.lanes, spec.lane_bytes) for _ in range(spec.cores)]
        self._l2 = np.zeros(spec.l2_bytes, np.uint8)
        nets = [net for net in program.bmodel.nets if net.device == number]
        sizes = [stage.ctx_size for net in nets for stage in net.stages]
        self._neuron = device_memory(max(sizes, default=0))
        self._blobs: dict[tuple[bytes, int], Bytes] = {}
        self._io: dict[str, Bytes] = {}

    def place(self, program: StageProgram) -> RuntimeNet:
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


class Runtime:
    """One file, loaded.

    `exact` computes matrix products as the chip does, bit for bit, and is slower. `order` is the one in which
    queues take turns in launches that are not told another.
    """

    def __init__(self, bmodel: BModel, exact: bool = True, order: Choose | None = None) -> None:
        self.program = Program(bmodel)
        self.exact = exact
        self.order = order
        devices = range(bmodel.device_num)
        self.devices = [Device(self.program, number, exact) for number in devices]
        self._mains = {main.name: main for main in main_nets(bmodel.nets) if main.is_cascade}
        self._hidden = [device_memory(hidden_bytes(self._mains.values(), number)) for number in devices]
        self._nets: dict[str, RuntimeNet] = {}
        self._cascades: dict[str, CascadeNet] = {}

    def net(self, name: str) -> CallableNet:
        """What clients call so: a net, which is its first stage, another of its stages by its name (see
        `loader.stage_names`), or a cascade. The nets of a cascade can be called by themselves too.
        """
        return self._cascade(name) if name in self._mains else self._placed(name)

    def _placed(self, name: str) -> RuntimeNet:
        if name not in self._nets:
            net, _ = self.program.find(name)
            self._nets[name] = self.devices[net.device].place(self.program.stage(name))
        return self._nets[name]

    def _cascade(self, name: str) -> CascadeNet:
        if name not in self._cascades:
            main = self._mains[name]
            nets = {net.name: self._placed(net.name) for net in main.nets}
            self._cascades[name] = CascadeNet(main, nets, self._hidden)
        return self._cascades[name]

    def stages(self, name: str) -> list[CallableNet]:
        """All stages of a net; a cascade has one."""
        if name in self._mains:
            return [self.net(name)]
        net, _ = self.program.find(name)
        return [self.net(each) for each in stage_names(net)]

    def stage_for(self, name: str, inputs: Mapping[str, Array]) -> CallableNet:
        """The stage of a net that is launched with such inputs: by their shapes; the first when none fits."""
        stages = self.stages(name)
        return next((stage for stage in stages if stage.takes(inputs)), stages[0])

    def has_net(self, name: str) -> bool:
        return name in self._mains or any(name in stage_names(net) for net in self.program.bmodel.nets)

    def run(
        self, name: str, inputs: Mapping[str, Array], order: Choose | None = None
    ) -> dict[str, Array]:
        """Launch with these inputs; the outputs by name. Types and shapes must be those of the file."""
        net = self.stage_for(name, inputs)
        given = [_bytes_of(checked_input(net, buffer.info, inputs)) for buffer in net.inputs]
        taken = [Buffer(buffer.info, np.zeros_like(buffer.data)) for buffer in net.outputs]
        self.launch(net, given, [buffer.data for buffer in taken], order)
        return {buffer.info.name: buffer.array for buffer in taken}

    def launch(
        self,
        net: CallableNet,
        inputs: Sequence[Bytes] | None = None,
        outputs: Sequence[Bytes] | None = None,
        order: Choose | None = None,
    ) -> None:
        """Run the program. Bytes given as inputs or outputs are copied, the net's own buffers are not."""
        if isinstance(net, CascadeNet):
            self._launch_steps(net, inputs, outputs, order)
        else:
            assert isinstance(net, RuntimeNet)
            self._launch_one(net, inputs, outputs, order)

    def _launch_steps(
        self,
        net: CascadeNet,
        inputs: Sequence[Bytes] | None,
        outputs: Sequence[Bytes] | None,
        order: Choose | None,
    ) -> None:
        own = ([buffer.data for buffer in buffers] for buffers in (net.inputs, net.outputs))
        memories = net.memories(*(given or data for given, data in zip((inputs, outputs), own, strict=True)))
        for step in net.steps:
            for device, part in step:
                names = ([buffer.info.name for buffer in buffers] for buffers in (part.inputs, part.outputs))
                given, taken = ([net.find(memories, name, device) for name in each] for each in names)
                self._launch_one(part, given, taken, order)

    def _launch_one(
        self,
        net: RuntimeNet,
        inputs: Sequence[Bytes] | None,
        outputs: Sequence[Bytes] | None,
        order: Choose | None,
    ) -> None:
        before = [(to.data, data) for to, data in zip(net.inputs, inputs or [], strict=bool(inputs))]
        after = [(data, of.data) for of, data in zip(net.outputs, outputs or [], strict=bool(outputs))]
        order = order or self.order
        try:
            steps = run_order(net.program.cores, order) if order else net.usual_order
            if len(net.machines) > 1:
                _run_cores(net, steps, before, after)
                return
            _copy_all(before)
            net.machines[0].run(step.instruction for step in steps)
            _copy_all(after)
        except SimulationError as error:
            raise CompileError(f"net {net.name}: {error}") from error
        except ValueError as error:  # numpy's, of operands whose shapes do not go together
            raise CompileError(f"net {net.name}: an instruction cannot be executed: {error}") from error
        except Deadlock as deadlock:
            raise CompileError(f"net {net.name} never ends: {deadlock}") from None


def _run_cores(net: RuntimeNet, steps: Iterable[Step], before: Copies, after: Copies) -> None:
    """Run all cores. The runtime copies for core 0 alone: before its first step, and after its last."""
    messages, left = Messages(), len(net.program.cores[0].tiu) + len(net.program.cores[0].dma)
    waiting = True
    for step in steps:
        if step.core == 0 and waiting:
            _copy_all(before)
            waiting = False
        messages.visit(step)
        net.machines[step.core].execute(step.instruction)
        left -= step.core == 0
        if step.core == 0 and not left:
            _copy_all(after)
    messages.finish()


def hidden_bytes(mains: Iterable[MainNet], device: int) -> int:
    """Of the buffer that a device has for what goes from step to step, in any of these nets."""
    places = [place for main in mains for (_, each), place in main.hidden_places().items() if each == device]
    return max((place.stop for place in places), default=0)


def device_memory(size: int) -> Bytes:
    """Bytes as they are before anything is written; zero where there are too many to touch them all."""
    return np.full(size, DDR_POISON, np.uint8) if size <= POISONED_BYTES else np.zeros(size, np.uint8)


def checked_input(net: CallableNet, info: TensorInfo, inputs: Mapping[str, Array]) -> Array:
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


def _bytes_of(array: Array) -> Bytes:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _copy_all(copies: Copies) -> None:
    """Bytes from one memory to another; a buffer onto itself stays as it is."""
    for target, source in copies:
        if target.ctypes.data != source.ctypes.data:
            target[...] = source
