"""What a file takes of a device's memory."""

from __future__ import annotations

from dataclasses import replace

from compiler.bmodel import read_bmodel, write_bmodel
from compiler.bmodel.memory import device_memory
from compiler.bmodel.writer import size_of_file
from tests.runtime_sim.check.programs import toy_model


def test_what_is_told_before_a_file_is_written_is_what_it_has(tmp_path):
    """Blobs that are equal without being known to be are one in the file, so it has one net with a blob."""
    model = toy_model(histories=(12, 6))
    model = replace(model, nets=[net for net in model.nets if net.name != "embedding_cache"])
    write_bmodel(tmp_path / "m.bmodel", model)
    found = read_bmodel(tmp_path / "m.bmodel")
    assert device_memory(model) == device_memory(found)
    assert size_of_file(model) == found.file_bytes == (tmp_path / "m.bmodel").stat().st_size


def test_kinds_are_told_apart():
    """Two layers of caches [1, 12, 1, 2] in 16 bits, K and V; a stage for a shorter history has the same."""
    model = toy_model(histories=(12, 6))
    memory = device_memory(model)
    assert memory.caches == 2 * 2 * 12 * 2 * 2
    sizes = [stage.io_size for net in model.nets for stage in net.stages[:1]]
    assert memory.io == sum(sizes) - memory.caches
    assert memory.scratch == max(stage.ctx_size for net in model.nets for stage in net.stages)
    assert memory.total == memory.weights + memory.caches + memory.io + memory.scratch + memory.instructions


def test_instructions_are_those_of_each_net():
    model = toy_model()
    net = model.nets[0]
    twice = replace(model, nets=[*model.nets, replace(net, name="again")])
    more = sum(len(core.tiu) + len(core.dma) for stage in net.stages for core in stage.cores)
    assert device_memory(twice).instructions == device_memory(model).instructions + more


def test_each_device_has_its_own():
    assert device_memory(toy_model(), device=1).total == 0
