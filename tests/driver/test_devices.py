"""Modules of devices, of which those that do the same are one, and what the nets of a cascade need beside."""

from __future__ import annotations

import pytest

from compiler.bmodel import AddrMode, Cascade, CommandStreams, Net, TensorInfo
from compiler.bmodel.cascade import main_nets
from compiler.ir.types import BF16
from compiler.weights.tile import Tile
from dialects.nets import net_of
from dialects.weights import Joined, LanePart, LaneRecord, Packed, Table
from driver.devices import by_device, completed, renamed
from frontend.imported import Instance, NetGroup
from frontend.importer import import_model
from tests.architectures.configs import config_of
from tests.compiler.bmodel.models import DDR, DMA, TIU, stage
from tests.passes.llm.parts import after, fused

NOTHING = CommandStreams(TIU, 1, DMA, 1)


def groups_of(devices: int, nets: str) -> list[NetGroup]:
    model = import_model(config_of("llama_bias"), 16, 8, BF16)
    group = next(group for group in model.nets if group.name == nets)
    split = after(fused(group.module), f"partition{{devices={devices}}},split-steps")
    instances = [Instance(layer, f"model.layers.{layer}.") for layer in (0, 3)]
    return by_device(NetGroup(split, instances if group.of_layers else [Instance()]), devices)


def test_devices_that_do_the_same_have_one_module():
    first, others = groups_of(4, "block_0")
    assert [(each.device, each.layer) for each in first.instances] == [(0, 0), (0, 3)]
    assert [(each.device, each.layer) for each in others.instances] == [
        (1, 0), (1, 3), (2, 0), (2, 3), (3, 0), (3, 3),
    ]  # fmt: skip
    assert (first.name, others.name) == ("block_0.device0", "block_0.device1")
    assert [function.sym_name for function in others.module.functions()] == [
        f"{net}.step{step}" for net in ("block", "block_cache") for step in range(3)
    ]
    assert {net_of(function).part.device for function in others.module.functions()} == {1}


def test_what_a_device_has_is_known_by_what_another_has():
    _, others = groups_of(4, "block_0")
    cuts = {each.device: dict(each.cuts) for each in others.instances}
    assert all(a == b for a, b in cuts[1].items())
    assert cuts[3]["self_attn.q_proj.weight{32:64:1}"] == "self_attn.q_proj.weight{96:128:1}"
    down = [(a, b) for a, b in cuts[3].items() if a.startswith("mlp.down_proj.weight{,")]
    assert len(down) == 1
    assert down[0][0] != down[0][1]


def test_numbers_of_rows_make_heads_differ():
    """An offset is in the program."""
    assert [[each.device for each in group.instances] for group in groups_of(3, "lm_head")] == [[0], [1], [2]]


def test_sources_are_renamed_wherever_names_are():
    cuts = {"a{0:8:1}": "a{8:16:1}", "b{,0:8:1}": "b{,8:16:1}"}
    tile = Tile(8, 8, 64, 64, BF16)
    packed = renamed(Packed(("a{0:8:1}", "c"), 0, 0, tile), cuts)
    assert packed.names == ("a{8:16:1}", "c")
    record = LaneRecord((LanePart(Joined(("b{,0:8:1}",), BF16), 4, False),), 64, 64)
    assert renamed(record, cuts).parts[0].source.names == ("b{,8:16:1}",)
    assert renamed(Table("cos"), cuts) == Table("cos")
    with pytest.raises(AssertionError, match="is no part of the weights that the module named"):
        renamed(Joined(("a{1:9:1}",), BF16), cuts)


def test_what_a_core_has_is_as_far_within_what_its_device_has():
    cuts = {"a{0:8:1}": "a{8:16:1}", "b{,0:8:1}": "b{,16:24:1}"}
    assert renamed(Joined(("a{2:4:1}", "b{,4:8:1}"), BF16), cuts).names == ("a{10:12:1}", "b{,20:24:1}")
    with pytest.raises(AssertionError, match="is no part of the weights"):
        renamed(Joined(("b{0:4:1}",), BF16), cuts)


# ---- nets ----


def part(device: int, step: int, *left: int) -> Net:
    outputs = [TensorInfo(f"h{step}.{i}", "i8", DDR + 8192 * i, (size,), hidden=True) for i, size in enumerate(left)]
    made = stage(inputs=[], outputs=[*outputs, TensorInfo("y", "i8", DDR + 65536, (4,))])
    return Net(f"net_{device}_{step}", AddrMode.BASIC, [made], Cascade("net", device, step))


@pytest.mark.parametrize("sizes", [[(5000,), (100,), ()], [(10,), (9000, 50), ()], [(10, 20), (70000,), ()]])
def test_no_step_writes_where_the_one_before_left_something(sizes):
    (main,) = main_nets(completed([part(0, step, *left) for step, left in enumerate(sizes)], 2, NOTHING))
    places = main.hidden_places()
    spares = {name for name, _ in places if name.startswith("spare")}
    for step, left in enumerate(sizes[:-1]):
        ours = [places[f"h{step}.{i}", 0] for i in range(len(left))]
        after_it = [places[info.name, 0] for info in main.nets[step + 1].stages[0].outputs if info.hidden]
        assert not any(a.start < b.stop and b.start < a.stop for a in ours for b in after_it)
    assert spares
    for net in main.nets:
        known = {(info.address, info.size) for info in net.stages[0].outputs if not info.name.startswith("spare")}
        assert all((info.address, info.size) in known for info in net.stages[0].outputs)


@pytest.mark.parametrize(("devices", "more"), [(2, 0), (3, 0), (4, 1), (8, 1)])
def test_the_runtime_keeps_its_hands_off(devices, more):
    """Where it would replace steps, the first one has a net that does nothing."""
    nets = [part(device, step) for step in range(2) for device in range(devices)]
    (main,) = main_nets(completed(nets, devices, NOTHING))
    assert [len(step) for step in main.steps] == [devices + more, devices]
    for net in main.nets[devices : devices + more]:
        assert (net.name, net.device, net.stages[0].cores) == ("net_idle", devices - 1, [NOTHING])
        assert net.stages[0].inputs == net.stages[0].outputs == []


def test_one_step_and_one_device_stay_as_they_are():
    alone = Net("other", AddrMode.BASIC, [stage()])
    nets = [*(part(device, 0) for device in range(4)), alone]
    assert completed(nets, 4, NOTHING) == nets
