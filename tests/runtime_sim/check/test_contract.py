"""Rules of files: a sound one passes, each broken rule is named."""

from dataclasses import replace

import pytest

from compiler.bmodel import BytesBlob, Coeff, Stage, read_bmodel, write_bmodel
from compiler.target.isa import split_address
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program
from tests.runtime_sim.check.changes import with_net, with_stage
from tests.runtime_sim.check.programs import (
    DDR,
    HISTORY,
    PAGE,
    add_model,
    block_programs,
    changed_model,
    toy_model,
)


@pytest.mark.parametrize("model", [add_model(), toy_model(), toy_model(layers=1)])
def test_sound_files_pass(problems, model):
    assert problems(model) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("tiu", 1, {"cmd_id_dep": 0}), "net add: nothing orders tiu 1"),
        (("tiu", 1, {"cmd_id_dep": 50}), "net add: the program never ends: tiu 1"),
        (("tiu", 2, {"cmd_id": 7}), "net add: tiu 2 carries the id 7"),
        (("dma", 1, {"src_start_addr_h8": 9}), "net add: dma 1 goes to bytes 0x900000000"),
        (("dma", 7, {"dst_start_addr_h8": 1, "dst_start_addr_l32": PAGE * 6}), "writes to its input b"),
        (("dma", 12, {"dst_nsize": 0, "src_csize": 63}), "of its output y is never written"),
    ],
)
def test_broken_programs(problems, changed, message):
    engine, number, fields = changed
    found = problems(changed_model(add_model(), engine, number, **fields))
    assert any(message in problem for problem in found), found


def test_writes_among_the_weights(problems):
    blob = BytesBlob(bytes(PAGE))
    model = with_stage(
        add_model(),
        "add",
        lambda stage: replace(
            stage,
            coeff=Coeff(DDR - PAGE, blob),
            outputs=[replace(stage.outputs[0], address=DDR - PAGE, shape=(4,), size=8)],
        ),
    )
    broken = changed_model(model, "dma", 7, **split_address("dst", DDR - PAGE), src_csize=1)
    found = problems(broken)
    assert "net add: dma 7 writes to bytes 0xfffff000 to 0xfffff060, among the weights" in found
    assert "net add: y lies among the weights" in found


def test_inputs_and_outputs_that_overlap(problems):
    model = with_stage(
        add_model(),
        "add",
        lambda stage: replace(
            stage, outputs=[replace(stage.outputs[0], address=stage.inputs[1].address + 64)]
        ),
    )
    assert "net add: b and y overlap" in problems(model)


def test_tensors_outside_the_memories(problems):
    model = with_stage(add_model(), "add", lambda stage: replace(stage, ctx_size=stage.ctx_size - 2 * PAGE))
    assert any("y is at 0x10000c000, outside the net's memories" in problem for problem in problems(model))


def test_a_stage_that_writes_where_another_has_its_history(problems):
    """Behind the rows that it knows of, and nowhere where it has something itself."""
    model = toy_model(histories=(HISTORY, 6))

    def change(stage: Stage) -> Stage:
        x, positions, _, keys, _ = (each.address for each in stage.inputs)
        y, _, values = stage.outputs
        behind = replace(stage.outputs[1], address=keys + stage.inputs[3].size)
        streams = block_programs(1, x, positions, y.address, behind.address, values.address)
        return replace(stage, outputs=[y, behind, values], cores=[streams])

    odd = with_net(model, "block_cache_0", lambda net: replace(net, stages=[net.stages[0], change(net.stages[1])]))
    found = problems(odd)
    assert "net block_cache_0.1: dma 4 writes to the input of block_cache_0 old_k" in found
    assert problems(model) == []


def test_wrong_hashes(tmp_path):
    write_bmodel(tmp_path / "m.bmodel", toy_model())
    data = bytearray((tmp_path / "m.bmodel").read_bytes())
    data[data.index(read_bmodel(tmp_path / "m.bmodel").net("embedding").stages[0].coeff.blob.data[:64])] ^= 1
    (tmp_path / "m.bmodel").write_bytes(data)
    program = Program(read_bmodel(tmp_path / "m.bmodel"))
    assert check_file(program) == ["net embedding: the check code of its weights is not their sha256"]
    assert check_file(program, hashes=False) == []
