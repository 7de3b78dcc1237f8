"""Rules of files: a sound one passes, each broken rule is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from compiler.bmodel import AddrMode, BModel, BytesBlob, Coeff, Net, Stage, read_bmodel, write_bmodel
from compiler.target.isa import split_address
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program
from tests.runtime_sim.check.programs import DDR, PAGE, add_model, changed_model, toy_model


@pytest.fixture
def problems(tmp_path) -> Callable[..., list[str]]:
    def check(model: BModel) -> list[str]:
        write_bmodel(tmp_path / "m.bmodel", model)
        return check_file(Program(read_bmodel(tmp_path / "m.bmodel")))

    return check


def with_net(model: BModel, name: str, change: Callable[[Net], Net]) -> BModel:
    return replace(model, nets=[change(net) if net.name == name else net for net in model.nets])


def with_stage(model: BModel, name: str, change: Callable[[Stage], Stage]) -> BModel:
    return with_net(model, name, lambda net: replace(net, stages=[change(net.stages[0])]))


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


def test_wrong_hashes(tmp_path):
    write_bmodel(tmp_path / "m.bmodel", toy_model())
    data = bytearray((tmp_path / "m.bmodel").read_bytes())
    data[data.index(read_bmodel(tmp_path / "m.bmodel").net("embedding").stages[0].coeff.blob.data[:64])] ^= 1
    (tmp_path / "m.bmodel").write_bytes(data)
    program = Program(read_bmodel(tmp_path / "m.bmodel"))
    assert check_file(program) == ["net embedding: the check code of its weights is not their sha256"]
    assert check_file(program, hashes=False) == []


def renamed(name: str) -> Callable[[Net], Net]:
    return lambda net: replace(net, name=name)


def moved(stage: Stage) -> Stage:
    """Everything one page further in the scratch memory."""
    return replace(stage, ctx_address=stage.ctx_address - PAGE, ctx_size=stage.ctx_size + PAGE)


def reshaped(which: str, index: int, **changes) -> Callable[[Stage], Stage]:
    def change(stage: Stage) -> Stage:
        tensors = list(getattr(stage, which))
        tensors[index] = replace(tensors[index], **changes)
        return replace(stage, **{which: tensors})

    return change


TOY = toy_model()
CLIENT_RULES = {
    "extra net": (with_net(TOY, "lm_head", renamed("my_head")), "net my_head is none that a client knows"),
    "no head": (with_net(TOY, "lm_head", renamed("my_head")), "it has no lm_head"),
    "no cache": (
        with_net(TOY, "block_cache_1", renamed("block_cache_7")),
        "net block_1 is beyond the 1 layers",
    ),
    "half embedding": (
        with_net(TOY, "embedding", renamed("block_1x")),
        "it has embedding_cache and not embedding",
    ),
    "basic cache": (
        with_net(TOY, "block_cache_1", lambda net: replace(net, addr_mode=AddrMode.BASIC)),
        "net block_cache_1 has addr_mode BASIC, clients need IO_ALONE",
    ),
    "alone block": (
        with_net(TOY, "block_0", lambda net: replace(net, addr_mode=AddrMode.IO_ALONE)),
        "net block_0 has addr_mode IO_ALONE, clients need BASIC",
    ),
    "moved block": (with_stage(TOY, "block_1", moved), "net block_1 has its inputs and outputs elsewhere"),
    "float token": (
        with_stage(TOY, "lm_head", reshaped("outputs", 0, dtype="f32")),
        "net lm_head has the outputs f32[1, 1], clients need i32[1, 1]",
    ),
    "short mask": (
        with_stage(TOY, "block_cache_0", reshaped("inputs", 2, shape=(1, 1, 1, 12))),
        "net block_cache_0 has the inputs",
    ),
    "lost input": (
        with_stage(TOY, "block_1", lambda stage: replace(stage, inputs=stage.inputs[:2])),
        "net block_1 has the inputs bf16[1, 8, 8], i32[1, 8], clients need bf16[1, 8, 8], i32[1, 8], bf16[1, 1, 8, 8]",
    ),
    "no cache inputs": (
        with_stage(TOY, "block_cache_0", lambda stage: replace(stage, inputs=stage.inputs[:3])),
        "net block_cache_0 has the inputs",
    ),
}


@pytest.mark.parametrize("case", CLIENT_RULES)
def test_rules_of_clients(problems, case):
    model, message = CLIENT_RULES[case]
    found = problems(model)
    assert any(message in problem for problem in found), found


def test_partial_overlap_at_the_handover(problems):
    """embedding's output a few bytes from block_0's input, measured from the start of the scratch memory."""
    block = TOY.net("block_0").stages[0]
    at = block.inputs[0].address - block.ctx_address
    base = TOY.net("embedding").stages[0].ctx_address
    model = with_stage(TOY, "embedding", reshaped("outputs", 0, address=base + at + 16))
    assert "embedding's output and block_0's input 0 overlap in part" in problems(model)
