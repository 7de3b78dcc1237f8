"""A hand-written language model for two devices: the toy model, whose states go around between them."""

from __future__ import annotations

from dataclasses import replace

from compiler.bmodel import AddrMode, BModel, Cascade, Net, Stage, TensorInfo
from tests.runtime_sim.check.programs import (
    DDR,
    HIDDEN,
    PAGE,
    SPEC,
    Assembler,
    Layout,
    local,
    toy_model,
)

DEVICES = 2


def toy_cascade(layers: int = 1) -> BModel:
    """A block's first step leaves its state for the other device, and a spare before it; its second takes what
    the other left, and gives that on. So every state crosses over in every layer.
    """
    one = toy_model(layers)
    nets = []
    for net in one.nets:
        kind = net.name.rpartition("_")[0]
        if net.name == "lm_head":
            nets.append(_part(net, 0))
        elif kind in ("block", "block_cache"):
            nets += _crossing(net)
        else:
            nets += [_part(net, device) for device in range(DEVICES)]
    return BModel(SPEC.chip, nets, device_num=DEVICES)


def _part(net: Net, device: int) -> Net:
    inputs, outputs = (
        [replace(info, index=index) for index, info in enumerate(infos)]
        for infos in (net.stages[0].inputs, net.stages[0].outputs)
    )
    stage = replace(net.stages[0], inputs=inputs, outputs=outputs)
    return Net(f"{net.name}_{device}_0", net.addr_mode, [stage], Cascade(net.name, device))


def _crossing(net: Net) -> list[Net]:
    first = [_first(net, device) for device in range(DEVICES)]
    return first + [_second(net, device) for device in range(DEVICES)]


def _first(net: Net, device: int) -> Net:
    """All that the block does, but that its state is hidden."""
    (stage,) = net.stages
    y, *kept = stage.outputs
    state = replace(y, name=f"state_{device}", hidden=True)
    kept = [replace(info, index=index) for index, info in enumerate(kept, 1)]
    inputs = [replace(info, index=index) for index, info in enumerate(stage.inputs)]
    outputs = [replace(state, name=f"spare_{device}"), state, *kept]
    made = replace(stage, inputs=inputs, outputs=outputs)
    return Net(f"{net.name}_{device}_0", net.addr_mode, [made], Cascade(net.name, device, 0))


def _second(net: Net, device: int) -> Net:
    layout = Layout()
    shape = net.stages[0].inputs[0].shape
    rows = shape[1]
    x, y, left = (layout.take(2 * rows * HIDDEN) for _ in range(3))
    asm = Assembler()
    for target in (y, left):
        asm.copy(x, local(0), (1, rows, 1, HIDDEN))
        asm.copy(local(0), target, (1, rows, 1, HIDDEN))
    given = TensorInfo(f"state_{1 - device}", "bf16", x, shape, hidden=True)
    outputs = [
        TensorInfo("y", "bf16", y, shape),
        TensorInfo(f"left_{device}", "bf16", left, shape, hidden=True),
    ]
    stage = Stage([given], outputs, DDR, layout.address - DDR, [asm.streams()])
    if net.addr_mode is AddrMode.IO_ALONE:
        size = layout.address - DDR
        stage = replace(stage, ctx_address=layout.take(PAGE), ctx_size=PAGE, io_address=DDR, io_size=size)
    return Net(f"{net.name}_{device}_1", net.addr_mode, [stage], Cascade(net.name, device, 1))


def with_part(model: BModel, part: str, /, **changes: object) -> BModel:
    """The model with other fields of one net."""
    return replace(model, nets=[replace(net, **changes) if net.name == part else net for net in model.nets])


def with_info(model: BModel, part: str, which: str, place: int, /, **changes: object) -> BModel:
    """The model with other fields of one input or output."""
    (stage,) = model.net(part).stages
    infos = list(getattr(stage, which))
    infos[place] = replace(infos[place], **changes)
    return with_part(model, part, stages=[replace(stage, **{which: infos})])


