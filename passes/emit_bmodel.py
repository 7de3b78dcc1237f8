"""After the last pass: chip functions to the command streams and the nets of a bmodel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeAlias, TypeVar

from compiler.bmodel import (
    AddrMode,
    BlobSource,
    Cascade,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
    WeightLocation,
)
from compiler.ir.core import Value
from compiler.ir.module import Function
from compiler.target.attribute import target_of
from compiler.target.isa import isa_for
from compiler.target.spec import ChipSpec
from dialects.chip import Fields, GlobalOp, Instruction, LocalOp, Placement
from dialects.nets import KEY, NetInput, NetOutput, net_of
from dialects.weights import region_name
from passes.chip.assign_addresses import globals_of, regions_of, weight_source

Found = TypeVar("Found")

STREAM_ALIGNMENT = 128  # bytes; the runtime reads past the end of a shorter stream
END = {"tiu": "sys", "dma": "dma_sys"}

Cores: TypeAlias = Mapping[Function, CommandStreams]  # of one stage of a net, core by core


def encode(function: Function) -> CommandStreams:
    """Both queues of a function whose buffers have addresses and whose instructions have ids and waits."""
    spec = target_of(function)
    isa = isa_for(spec)
    queues: dict[str, list[bytes]] = {"tiu": [], "dma": []}
    codes = PerPlace(function, lambda op, fields: isa.encode(op.family, op.isa_kind(), fields))
    for op in instructions_of(function):
        try:
            code = isa.ordered(op.family, codes(op), order_of(op, spec))
        except ValueError as error:
            op.fail(f"cannot be encoded: {error}")
        queues[op.engine].append(code)
    return ended(queues, spec)


def instructions_of(function: Function) -> Iterator[Instruction]:
    return (op for op in function.block.ops.listed() if isinstance(op, Instruction))


def order_of(op: Instruction, spec: ChipSpec) -> Fields:
    """The registers that tell an instruction from others that do the same to the same places."""
    return {"cmd_id": op.id, "cmd_id_dep": op.wait} if spec.command_ids else {"cmd_id_dep": op.wait}


class PerPlace(Generic[Found]):
    """A function of what instructions write to registers, without their order: worked out once for all of one
    form in one place. Registers that are not named are 0, or what the layout says of them.
    """

    def __init__(self, function: Function, found: Callable[[Instruction, Fields], Found]) -> None:
        spec = target_of(function)
        buffers = (op.results[0] for op in function.block.ops.listed() if isinstance(op, LocalOp | GlobalOp))
        self._addresses = {buffer: address_of(buffer) for buffer in buffers}
        self._place = Placement(spec, self._addresses.__getitem__, spec.lane_bytes)
        self._found = found
        self._known: dict[Hashable, Found] = {}

    def __call__(self, op: Instruction) -> Found:
        buffers = op.operands
        where = [self._addresses[buffer] for buffer in buffers]
        key = (id(op.shared_attributes), *where, *[buffer.type.__class__ for buffer in buffers])
        if key not in self._known:
            self._known[key] = self._found(op, op.fields(self._place))
        return self._known[key]


def ended(queues: dict[str, list[bytes]], spec: ChipSpec) -> CommandStreams:
    """Both queues with the commands that end them."""
    isa = isa_for(spec)
    for engine, queue in queues.items():
        own_id = {"cmd_id": len(queue) + 1} if spec.command_ids else {}
        queue.append(isa.encode(END[engine], "end", own_id))
    tiu, dma = (padded(b"".join(queue)) for queue in queues.values())
    return CommandStreams(tiu, len(queues["tiu"]), dma, len(queues["dma"]))


def no_streams(spec: ChipSpec) -> CommandStreams:
    """Of a core that does nothing."""
    return ended({"tiu": [], "dma": []}, spec)


def address_of(buffer: Value) -> int:
    """Byte offset in the lane, or DDR address."""
    owner = buffer.owner
    assert isinstance(owner, LocalOp | GlobalOp)
    address = owner.offset if isinstance(owner, LocalOp) else owner.address
    assert address is not None, f"{owner} has no address yet"
    return address


def padded(stream: bytes) -> bytes:
    return stream + bytes(-len(stream) % STREAM_ALIGNMENT)


def bmodel_net(
    stages: Sequence[Cores],
    layer: int | None,
    blob: BlobSource | None,
    cores: int = 1,
    device: int | None = None,
) -> Net:
    """The net of these stages that is bound to a layer, and to a device where there are several; those of
    others share streams, not `blob`.

    It is for so many cores, of which those that have no function do nothing.
    """
    net = net_of(next(iter(stages[0])))
    mode = AddrMode.IO_ALONE if net.io_alone else AddrMode.BASIC
    found = [stage_of(stage, blob, cores, device) for stage in stages]
    if device is None:
        return Net(net.name_for(layer), mode, found)
    cascade = Cascade(net.name_for(layer), device, net.part.step)
    return Net(name_in_cascade(cascade), mode, found, cascade)


def name_in_cascade(cascade: Cascade) -> str:
    """What a net of a cascade is called; clients do not use it."""
    step = f"_{cascade.step}" if cascade.step else ""
    return f"{cascade.main_name}_{cascade.device}{step}"


def stage_of(streams: Cores, blob: BlobSource | None, cores: int, device: int | None = None) -> Stage:
    functions = list(streams)
    net, attributes, spec = net_of(functions[0]), functions[0].attributes, target_of(functions[0])
    tag = spec.io_tag if net.io_alone else 0  # commands add it to what the file says of I/O memory of its own
    nothing = no_streams(spec)
    return Stage(
        inputs=tensors(functions, "input", net.inputs, tag, device),
        outputs=tensors(functions, "output", net.outputs, tag, device),
        ctx_address=attributes["bm.scratch_address"],
        ctx_size=attributes["bm.scratch_bytes"],
        io_address=attributes.get("bm.io_address", tag) - tag,
        io_size=attributes.get("bm.io_bytes", 0),
        cores=[*streams.values(), *[nothing] * (cores - len(streams))],
        is_dynamic=net.flexible,
        idle=[nothing] * cores if net.flexible else [],
        coeff=None if blob is None else Coeff(spec.coeff_base, blob, locations(functions, spec.coeff_base)),
    )


def tensors(
    cores: Sequence[Function],
    space: str,
    stated: Sequence[NetInput | NetOutput],
    tag: int,
    device: int | None = None,
) -> list[TensorInfo]:
    """The regions of a space by the names that `bm.net` has for them."""
    found = [ops[0] for ops in regions_of(cores, space)]
    if [op.index or 0 for op in found] != list(range(len(stated))):
        cores[0].fail(f"has {len(found)} regions for {space}s, not those of its {KEY}, {len(stated)}")
    return [tensor_info(op, each, tag, device) for op, each in zip(found, stated, strict=True)]


def tensor_info(op: GlobalOp, stated: NetInput | NetOutput, tag: int, device: int | None) -> TensorInfo:
    if op.tensor is None:
        op.fail("does not say what its tensor is")
    name = stated.name if device is None else stated.name_on(device)
    info = TensorInfo(name, op.tensor.element.name, address_of(op.buffer) - tag, op.tensor.shape)
    return replace(info, hidden=stated.hidden, index=stated.index or 0)


def locations(cores: Sequence[Function], base: int) -> tuple[WeightLocation, ...]:
    """The weights that any core reads, those of each in the order of its program."""
    regions = {address_of(op.buffer): op for function in cores for op in globals_of(function, "weight")}
    return tuple(
        WeightLocation(region_name(weight_source(op)), address - base, op.buffer.type.bytes)
        for address, op in regions.items()
    )
