"""From a file's bytes to decoded programs: what does not fit is refused in words."""

from dataclasses import replace

import pytest

from compiler.bmodel import BModel, CommandStreams, Net
from compiler.diagnostics import UserError
from runtime_sim.launch.loader import DEVICE_BYTES, Program, Region, stage_names
from tests.runtime_sim.check.changes import with_net
from tests.runtime_sim.check.programs import DDR, PAGE, add_model, toy_model


def with_streams(**changes) -> BModel:
    model = add_model()
    net = model.nets[0]
    streams = replace(net.stages[0].cores[0], **changes)
    return replace(model, nets=[replace(net, stages=[replace(net.stages[0], cores=[streams])])])


def test_streams_are_decoded_with_their_ends():
    core = Program(add_model()).stage("add").cores[0]
    assert [instruction.name for instruction in core.tiu] == ["ar"] * 4 + ["sys"]
    assert core.dma[-1].name == "dma_sys"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiu_count": 4}, "net add: 5 tiu instructions where 4 are announced"),
        ({"dma": bytes(128)}, "net add: "),
        ({"tiu": b"\xff" * 128}, "net add: "),
        ({"tiu": b""}, "net add: 0 tiu instructions"),
    ],
)
def test_damaged_streams_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Program(with_streams(**changes)).stage("add")


def test_unknown_chips_are_refused():
    with pytest.raises(UserError, match="for the chip 'BM1690'; known here are BM1684X"):
        Program(replace(add_model(), chip="BM1690"))


def test_stages_that_only_an_inspector_can_read_are_refused():
    model = add_model()
    net = Net("add", model.nets[0].addr_mode, [replace(model.nets[0].stages[0], unsupported="2 sub-nets")])
    with pytest.raises(UserError, match="net add cannot be run here: it has 2 sub-nets"):
        Program(replace(model, nets=[net])).stage("add")


def test_regions_cover_weights_scratch_and_io():
    program = Program(toy_model())
    embedding, cache = program.stage("embedding"), program.stage("block_cache_0")
    assert embedding.span_of(DDR).region is Region.COEFF
    assert cache.span_of(DDR).region is Region.IO
    assert cache.span_of(cache.stage.ctx_address).region is Region.NEURON
    assert cache.span_of(DDR - 1) is None
    assert isinstance(cache.stage.cores[0], CommandStreams)


def test_stages_are_found_by_name():
    """The first as the net, the others by their number; a net of that very name comes before it."""
    model = toy_model(histories=(12, 6))
    program = Program(model)
    assert stage_names(model.net("block_cache_1")) == ["block_cache_1", "block_cache_1.1"]
    stages = [program.stage(name) for name in ("block_cache_1", "block_cache_1.1")]
    assert [stage.stage.inputs[3].shape[1] for stage in stages] == [12, 6]
    assert [stage.name for stage in stages] == ["block_cache_1", "block_cache_1.1"]
    for name in ("block_cache_1.0", "block_cache_1.2", "block_cache_1.x", "block_0.1", "block"):
        with pytest.raises(UserError, match=rf"no net '{name}'; there are embedding, "):
            program.stage(name)


def test_stages_of_a_net_share_its_own_memory():
    model = toy_model(layers=1, histories=(12, 6))
    net = model.net("block_cache_0")
    large = [replace(stage, io_size=DEVICE_BYTES // 2 + PAGE) for stage in net.stages]
    Program(with_net(model, net.name, lambda net: replace(net, stages=large)))
    with pytest.raises(UserError, match="expected at most"):
        Program(with_net(model, net.name, lambda net: replace(net, stages=[*net.stages, replace(large[0], io_size=DEVICE_BYTES)])))
