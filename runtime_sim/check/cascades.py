"""What nets that work for one another on several devices must satisfy so that the runtime can run them.

Source: functions `cascade_...` and `launch` of Bmruntime in Sophgo's tpu-runtime; see
compiler/bmodel/cascade.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from compiler.bmodel import AddrMode, BModel, Net, Stage, TensorInfo
from compiler.bmodel.cascade import SUMMED_BY_RUNTIME, MainNet, Part, main_nets, step_of


@dataclass(frozen=True)
class Exchange:
    """A tensor that a net reads on `device` because another one, `source`, has it under that name."""

    reader: Net
    wanted: TensorInfo
    source: Net
    given: TensorInfo


def cascade_problems(bmodel: BModel) -> Iterator[str]:
    """What is wrong with the cascades of a file, in sentences."""
    mains = main_nets(bmodel.nets)
    for main in mains:
        if sum(other.name == main.name for other in mains) > 1:
            yield f"{main.name} is a net and a cascade of nets"
        if main.is_cascade:
            problems = [*_order_problems(main)] or [*_flow_problems(main), *_count_problems(main, bmodel)]
            yield from (f"cascade {main.name}: {problem}" for problem in problems)


def _order_problems(main: MainNet) -> Iterator[str]:
    """The runtime makes a cascade of the net of device 0 and step 0, and takes steps as they come."""
    steps = [step_of(net) for net in main.nets]
    if steps[0] or main.nets[0].device:
        yield f"it begins with {main.nets[0].name}, not with a net of device 0 and step 0"
    if steps != sorted(steps) or set(steps) != set(range(max(steps) + 1)):
        yield f"its nets are of the steps {', '.join(map(str, steps))}: expected 0, 1 and so on"
    for net in main.nets:
        if len(net.stages) > 1:
            yield f"net {net.name} has {len(net.stages)} stages, of which the runtime knows one"
        if net.addr_mode is not main.nets[0].addr_mode:
            yield f"net {net.name} has another addr_mode than {main.nets[0].name}"


def _flow_problems(main: MainNet) -> Iterator[str]:
    yield from _index_problems(main)
    yield from _name_problems(main)
    for net in main.nets:
        for wanted in net.stages[0].inputs:
            if wanted.hidden:
                yield from _hidden_problems(main, net, wanted)
            elif step_of(net) and _worked_before(main, net):
                yield f"net {net.name} reads {wanted.name}, which earlier steps may have worked over"


def _index_problems(main: MainNet) -> Iterator[str]:
    for what, parts in (("inputs", main.inputs), ("outputs", main.outputs)):
        for device in {part.net.device for part in parts}:
            found = [part.info.index for part in parts if part.net.device == device]
            if found != list(range(len(found))):
                yield f"the {what} of device {device} have the places {', '.join(map(str, found))}"


def _name_problems(main: MainNet) -> Iterator[str]:
    """Outputs are known by name, and two of one name on a device would be one."""
    known: set[tuple[str, int]] = set()
    for net in main.nets:
        for info in net.stages[0].outputs:
            if (info.name, net.device) in known:
                yield f"device {net.device} makes {info.name} twice"
            known.add((info.name, net.device))


def _worked_before(main: MainNet, net: Net) -> bool:
    return any(other.device == net.device and step_of(other) < step_of(net) for other in main.nets)


def _hidden_problems(main: MainNet, net: Net, wanted: TensorInfo) -> Iterator[str]:
    givers = [*_givers(main, net, wanted.name)]
    if not givers:
        yield f"net {net.name} reads {wanted.name}, which no earlier step gives"
    elif len(givers) > 1:
        yield f"net {net.name} reads {wanted.name}, which {len(givers)} others give"
    else:
        source, given = givers[0].net, givers[0].info
        if (given.dtype, given.shape) != (wanted.dtype, wanted.shape):
            yield f"net {net.name} reads {wanted.name} as another type than {source.name} gives it"
        if given.hidden:
            yield from _lifetime_problems(main, Exchange(net, wanted, source, given))


def _givers(main: MainNet, net: Net, name: str) -> Iterator[Part]:
    """What a net finds under a name: of its own device, or else of any."""
    earlier = [each for each in main.nets if step_of(each) < step_of(net)]
    found = [Part(each, info) for each in earlier for info in each.stages[0].outputs if info.name == name]
    found += [part for part in main.inputs if part.info.name == name]
    own = [part for part in found if part.net.device == net.device]
    yield from own or found


def _lifetime_problems(main: MainNet, exchange: Exchange) -> Iterator[str]:
    """What later steps leave lies from the start of the same buffer: it may take the place of the other."""
    places, device = main.hidden_places(), exchange.source.device
    kept = places[exchange.given.name, device]
    for net in main.nets:
        if net.device != device or not step_of(exchange.source) < step_of(net) <= step_of(exchange.reader):
            continue
        if net is exchange.reader:
            continue  # it has read when it writes
        for info in net.stages[0].outputs:
            place = places[info.name, device] if info.hidden else range(0)
            if place.start < kept.stop and kept.start < place.stop:
                what, reader = exchange.given.name, exchange.reader.name
                yield f"{net.name} may write {info.name} over {what} before {reader} reads it"


def _count_problems(main: MainNet, bmodel: BModel) -> Iterator[str]:
    devices, steps = bmodel.device_num, main.steps
    if devices in SUMMED_BY_RUNTIME and len(steps) > 1 and len(steps[0]) == devices:
        text = "the runtime would put a sum of its own in the place of later steps"
        yield f"its first step has {devices} nets: {text}"


def device_view(bmodel: BModel, device: int) -> BModel:
    """The file as a client sees what it has of one device: nets by the names that it calls.

    Addresses count from the start of the memory that holds them. Of what has nothing on the device for a
    client, the first device's is shown.
    """
    if not any(net.cascade for net in bmodel.nets):
        return bmodel
    nets = [_seen(main, device) if main.is_cascade else main.nets[0] for main in main_nets(bmodel.nets)]
    return replace(bmodel, nets=nets)


def _seen(main: MainNet, device: int) -> Net:
    inputs, outputs = (_of_device(parts, device) for parts in (main.inputs, main.outputs))
    sizes = [net.stages[0].ctx_size for net in main.nets if net.device == device]
    stage = Stage([*map(_placed, inputs)], [*map(_placed, outputs)], 0, max(sizes, default=0), [])
    return Net(main.name, main.nets[0].addr_mode, [stage])


def _of_device(parts: list[Part], device: int) -> list[Part]:
    own = [part for part in parts if part.net.device == device]
    return own or [part for part in parts if part.net.device == 0]


def _placed(part: Part) -> TensorInfo:
    stage = part.net.stages[0]
    start = stage.io_address if part.net.addr_mode is AddrMode.IO_ALONE else stage.ctx_address
    return replace(part.info, address=part.info.address - start)
