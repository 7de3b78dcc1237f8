"""Rules of nets that work for one another on several devices: a file that breaks one is told why."""

from dataclasses import replace

import pytest

from compiler.bmodel import AddrMode, Cascade, Net
from runtime_sim.check.cascades import cascade_problems, device_view
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program
from tests.runtime_sim.check.cascades import toy_cascade, with_info, with_part


@pytest.fixture
def model():
    return toy_cascade()


def test_a_cascade_can_be_sound(model):
    assert check_file(Program(model), hashes=False) == []


def moved(model, name, place):
    """The model with a net in another place of the file."""
    nets = [net for net in model.nets if net.name != name]
    nets.insert(place, model.net(name))
    return replace(model, nets=nets)


def without_spare(model):
    (stage,) = model.net("block_0_1_0").stages
    return with_part(model, "block_0_1_0", stages=[replace(stage, outputs=stage.outputs[1:])])


def on_four_devices(model):
    nets = [replace(net, name=f"{net.name}+") for net in model.nets]
    first = [net for net in nets if net.main_name == "block_0" and net.cascade.step == 0]
    twice = [replace(net, name=f"{net.name}+", cascade=replace(net.cascade, device=2 + d)) for d, net in enumerate(first)]
    at = nets.index(first[-1]) + 1
    return replace(model, device_num=4, nets=[*nets[:at], *twice, *nets[at:]])


def two_stages(model):
    (stage,) = model.net("block_0_1_0").stages
    return with_part(model, "block_0_1_0", stages=[stage, stage])


BROKEN = {
    "the second device first": (lambda m: moved(m, "block_0_0_0", 5), "begins with block_0_1_0, not with a net of"),
    "steps out of order": (lambda m: moved(m, "block_0_1_0", 6), "are of the steps 0, 1, 0, 1: expected 0, 1"),
    "a step left out": (
        lambda m: with_part(m, "block_0_1_1", cascade=Cascade("block_0", 1, 3)), "are of the steps 0, 0, 1, 3"
    ),
    "stages": (two_stages, "net block_0_1_0 has 2 stages, of which the runtime knows one"),
    "modes": (lambda m: with_part(m, "block_0_1_1", addr_mode=AddrMode.IO_ALONE), "has another addr_mode than"),
    "a tensor of the wrong step": (
        lambda m: with_info(m, "block_0_0_1", "inputs", 0, name="left_1"),
        "net block_0_0_1 reads left_1, which no earlier step gives",
    ),
    "a tensor that two give": (
        lambda m: with_info(with_info(m, "block_0_0_0", "outputs", 1, name="state"), "block_0_1_0", "outputs", 1, name="state"),
        "net block_0_0_1 reads state_1, which no earlier step gives",
    ),
    "made twice": (
        lambda m: with_info(m, "block_0_0_1", "outputs", 1, name="state_0"), "device 0 makes state_0 twice"
    ),
    "another type": (
        lambda m: with_info(m, "block_0_0_1", "inputs", 0, dtype="f16"),
        "net block_0_0_1 reads state_1 as another type than block_0_1_0 gives it",
    ),
    "no spare": (without_spare, "block_0_1_1 may write left_1 over state_1 before block_0_0_1 reads it"),
    "places": (
        lambda m: with_info(m, "block_0_1_0", "inputs", 2, index=3), "inputs of device 1 have the places 0, 1, 3"
    ),
    "summed by the runtime": (on_four_devices, "its first step has 4 nets: the runtime would put a sum"),
    "read late": (
        lambda m: with_info(m, "block_0_0_1", "inputs", 0, hidden=False, name="x"),
        "net block_0_0_1 reads x, which earlier steps may have worked over",
    ),
    "called like a net": (
        lambda m: replace(m, nets=[*m.nets, Net("block_0", AddrMode.BASIC, m.nets[0].stages)]),
        "block_0 is a net and a cascade of nets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_what_the_runtime_cannot_run_is_told(model, broken):
    change, message = BROKEN[broken]
    problems = list(cascade_problems(change(model)))
    assert any(message in problem for problem in problems), problems


def test_what_two_devices_give_under_one_name_is_no_ones(model):
    for device in range(2):
        model = with_info(model, f"block_0_{device}_0", "outputs", 1, name="state")
    late = with_info(model, "block_0_0_1", "inputs", 0, name="state")
    assert not list(cascade_problems(with_info(late, "block_0_1_1", "inputs", 0, name="state")))
    lone = replace(late, nets=[net for net in late.nets if net.name != "block_0_1_1"])
    (stage,) = lone.net("block_0_0_1").stages
    third = Net("block_0_2_1", AddrMode.BASIC, [stage], Cascade("block_0", 2, 1))
    told = list(cascade_problems(replace(lone, device_num=3, nets=[*lone.nets, third])))
    assert "cascade block_0: net block_0_2_1 reads state, which 2 others give" in told


def test_a_device_is_seen_as_a_file_of_its_own(model):
    for device in range(2):
        view = device_view(model, device)
        assert [net.name for net in view.nets][:3] == ["embedding", "embedding_cache", "block_0"]
        (stage,) = view.net("block_cache_0").stages
        assert [info.name for info in stage.inputs] == ["x", "position_ids", "mask", "old_k", "old_v"]
        assert [info.name for info in stage.outputs] == ["y", "k", "v"]
        assert [info.address for info in stage.inputs] == [0, 4096, 8192, 12288, 16384]
