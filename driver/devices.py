"""A model on several devices: each has a module of its own, or that of another which does the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle

from compiler.bmodel import CommandStreams, Net, Stage, TensorInfo
from compiler.bmodel.cascade import HIDDEN_ALIGNMENT, SUMMED_BY_RUNTIME, MainNet, main_nets, step_of
from compiler.ir.core import Value
from compiler.ir.module import walk
from compiler.ir.printer import print_module
from compiler.sizes import round_up
from dialects import llm
from dialects.builtin import ModuleOp
from dialects.nets import KEY, net_of
from dialects.weights import (
    EVERYTHING,
    Joined,
    LaneRecord,
    Packed,
    WeightSource,
    expert_name,
    some_items,
    view_of_name,
)
from frontend.imported import NetGroup
from passes.chip.assign_addresses import PAGE

# ---- their modules ----


def by_device(group: NetGroup, devices: int) -> list[NetGroup]:
    """A group for each device whose functions the module has; for those that do the same, one."""
    found: dict[str, NetGroup] = {}
    for device in range(devices):
        module = of_device(group.module, device)
        if not module.functions():
            continue
        alike = found.setdefault(likeness(module), NetGroup(module, []))
        cuts = cuts_between(alike.module, module)
        if cuts is None:
            alike = found.setdefault(f"{device}", NetGroup(module, []))
            cuts = cuts_between(module, module)
        assert cuts is not None
        bound = [replace(instance, device=device, cuts=tuple(cuts.items())) for instance in group.instances]
        alike.instances.extend(bound)
    return list(found.values())


def of_device(module: ModuleOp, device: int) -> ModuleOp:
    """Its functions, called the same on every device."""
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    for function in copy.functions():
        net = net_of(function)
        if net.part.device == device:
            function.sym_name = f"{net.stage_name}.step{net.part.step}"
        else:
            function.erase()
    return copy


def likeness(module: ModuleOp) -> str:
    """Equal for modules that differ in nothing but the device and what it has of weights."""
    copy = module.clone()
    assert isinstance(copy, ModuleOp)
    for function in copy.functions():
        net = net_of(function)
        function.attributes = {**function.attributes, KEY: replace(net, part=replace(net.part, device=0))}
    for op in slices_of(copy):
        op.start, op.stop = 0, op.stop - op.start
    return print_module(copy)


def slices_of(module: ModuleOp) -> Iterator[llm.SliceWeightsOp]:
    return (op for op in walk(module) if isinstance(op, llm.SliceWeightsOp))


def cuts_between(one: ModuleOp, other: ModuleOp) -> dict[str, str] | None:
    """What each part of a weight that a module names is called in another that is like it; None where one
    name has two meanings.
    """
    found: dict[str, str] = {}
    for a, b in zip(slices_of(one), slices_of(other), strict=True):
        if found.setdefault(name_of(a.y), name_of(b.y)) != name_of(b.y):
            return None
    return found


def name_of(weight: Value) -> str:
    """As sources of weights have it."""
    op = weight.owner
    if isinstance(op, llm.SliceWeightsOp):
        return some_items(name_of(op.weight), op.axis, slice(op.start, op.stop, op.step))
    assert isinstance(op, llm.WeightOp), f"{op} is cut after weights are joined"
    return op.name


def renamed(source: WeightSource, cuts: Mapping[str, str]) -> WeightSource:
    """What another device has in the place of a region of the one that its module was made of."""
    if isinstance(source, LaneRecord):
        parts = tuple(replace(part, source=renamed(part.source, cuts)) for part in source.parts)
        return replace(source, parts=parts)
    if not isinstance(source, Packed | Joined):
        return source
    known = {expert_name(a, None): expert_name(b, None) for a, b in cuts.items()} | dict(cuts)
    return replace(source, names=tuple(moved(name, known) for name in source.names))


def moved(name: str, cuts: Mapping[str, str]) -> str:
    """What another device has in the place of a weight, or of a part of one: of those that the module named,
    or within one of them, as a core has it.
    """
    if name in cuts or not view_of_name(name).cut:
        return cuts.get(name, name)
    found = {shifted(name, a, b) for a, b in cuts.items() if lies_within(name, a)}
    assert len(found) == 1, f"{name} is no part of the weights that the module named"
    return found.pop()


def lies_within(name: str, other: str) -> bool:
    a, b = view_of_name(name), view_of_name(other)
    if (a.tensor, a.transposed, len(a.cut)) != (b.tensor, b.transposed, len(b.cut)):
        return False
    return all(map(is_within, a.cut, b.cut))


def is_within(a: slice, b: slice) -> bool:
    if EVERYTHING in (a, b):
        return a == b
    return bool(b.start <= a.start and a.stop <= b.stop and a.step == b.step == 1)


def shifted(name: str, here: str, there: str) -> str:
    """A name within `here`, as far within `there`."""
    view = view_of_name(name)
    pairs = zip(view.cut, view_of_name(here).cut, view_of_name(there).cut, strict=True)
    cut = tuple(x if x == EVERYTHING else moved_range(x, b.start - a.start) for x, a, b in pairs)
    return replace(view, cut=cut).name


def moved_range(cut: slice, by: int) -> slice:
    return slice(cut.start + by, cut.stop + by, cut.step)


# ---- their nets ----


def completed(nets: Iterable[Net], devices: int, nothing: CommandStreams) -> list[Net]:
    """The nets, with what the runtime needs to keep what goes from step to step, and to run the steps at all.

    `nothing` are the streams of a program without instructions.
    """
    found: list[Net] = []
    for main in main_nets(nets):
        made = with_spares(main) if main.is_cascade else [*main.nets]
        steps = main.steps
        if devices in SUMMED_BY_RUNTIME and len(steps) > 1 and len(steps[0]) == devices:
            made.insert(devices, idle(made[devices - 1], nothing))
        found += made
    return found


def with_spares(main: MainNet) -> list[Net]:
    """What steps leave is in one buffer of the device, from its start on. So that no step writes where others
    still read what the one before left, every other one leaves something else first: its results once more.
    """
    sizes = {(net.device, step_of(net)): hidden_bytes(net) for net in main.nets}
    found = []
    for net in main.nets:
        step = step_of(net)
        near = [sizes.get((net.device, other), 0) for other in (step - 1, step + 1)]
        found.append(net if step % 2 or not hidden_bytes(net) else with_spare(net, max(near)))
    return found


def hidden_bytes(net: Net) -> int:
    """That the runtime keeps of what a net leaves for other steps."""
    return sum(kept_bytes(info) for info in net.stages[0].outputs if info.hidden)


def kept_bytes(info: TensorInfo) -> int:
    return round_up(info.size, HIDDEN_ALIGNMENT)


def with_spare(net: Net, size: int) -> Net:
    """The net with so many bytes before what it leaves."""
    (stage,) = net.stages
    spares: list[TensorInfo] = []
    for number, info in enumerate(cycle([info for info in stage.outputs if info.hidden])):
        if sum(map(kept_bytes, spares)) >= size:
            break
        spares.append(replace(info, name=f"spare{number}.{info.name}"))
    return replace(net, stages=[replace(stage, outputs=[*spares, *stage.outputs])])


def idle(like: Net, nothing: CommandStreams) -> Net:
    """A net more in the same step of the same device; see `SUMMED_BY_RUNTIME`."""
    (stage,) = like.stages
    cores = [nothing] * len(stage.cores)
    none = Stage([], [], stage.ctx_address, PAGE, cores, stage.io_address, min(stage.io_size, PAGE))
    assert like.cascade is not None
    return Net(f"{like.cascade.main_name}_idle", like.addr_mode, [none], like.cascade)
