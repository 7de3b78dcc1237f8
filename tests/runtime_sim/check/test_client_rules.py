"""Rules that chat programs rely on: a model that breaks one, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from compiler.bmodel import AddrMode, Cascade, Net, Stage
from runtime_sim.check.client_rules import model_problems, shape_problems
from runtime_sim.launch.loader import Program
from tests.runtime_sim.check.cascades import toy_cascade, with_info
from tests.runtime_sim.check.changes import with_net, with_stage
from tests.runtime_sim.check.programs import (
    HISTORY,
    PAGE,
    add_model,
    toy_grid_tower,
    toy_model,
    toy_tile_tower,
)


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
    "logits for nobody": (
        with_stage(TOY, "lm_head", reshaped("outputs", 0, dtype="f32", shape=(1, 9))),
        "its lm_head gives logits, and there is no greedy_head to choose among them",
    ),
    "logits of whole numbers": (
        with_stage(TOY, "lm_head", reshaped("outputs", 0, shape=(1, 9))),
        "net lm_head has the outputs i32[1, 9], clients need f32[1, 9]",
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

STAGED = toy_model(histories=(HISTORY, 6, 3))


def with_stages(name: str, change: Callable[[list[Stage]], list[Stage]]):
    return with_net(STAGED, name, lambda net: replace(net, stages=change(list(net.stages))))


def with_further(change: Callable[[Stage], Stage]):
    return with_stages("block_cache_1", lambda stages: [stages[0], change(stages[1]), *stages[2:]])


def apart(stage: Stage, size: int) -> Stage:
    """Inputs and outputs closer together, as they would be without the longer stages."""
    first, second = stage.inputs[3:5]
    second = replace(second, address=first.address + size)
    return replace(stage, inputs=[*stage.inputs[:4], second])


CLIENT_RULES |= {
    "shortest stage first": (
        with_stages("block_cache_0", lambda stages: stages[::-1]),
        "the stages of net block_cache_0 hold 3, 6, 12 tokens, clients need the largest first",
    ),
    "a stage twice": (
        with_stages("block_cache_0", lambda stages: [*stages, stages[-1]]),
        "the stages of net block_cache_0 hold 12, 6, 3, 3 tokens, clients need the largest first",
    ),
    "fewer stages in a layer": (
        with_stages("block_cache_1", lambda stages: stages[:2]),
        "the stages of net block_cache_1 hold 12, 6 tokens, those of block_cache_0 12, 6, 3",
    ),
    "odd mask of a stage": (
        with_further(reshaped("inputs", 2, shape=(1, 1, 1, 6))),
        "net block_cache_1.1 has the inputs",
    ),
    "odd type in a stage": (
        with_further(reshaped("outputs", 0, dtype="f16")),
        "net block_cache_1.1 has the outputs f16[1, 1, 8]",
    ),
    "history elsewhere": (
        with_further(lambda stage: apart(stage, PAGE // 2)),
        "net block_cache_1.1 has its history elsewhere than block_cache_1",
    ),
    "an input in the longer history": (
        with_further(lambda stage: reshaped("inputs", 2, address=stage.inputs[4].address + stage.inputs[4].size)(stage)),
        "net block_cache_1.1 has mask where block_cache_1 has its history",
    ),
    "an output in the longer history": (
        with_further(lambda stage: reshaped("outputs", 1, address=stage.inputs[3].address + stage.inputs[3].size)(stage)),
        "net block_cache_1.1 has k where block_cache_1 has its history",
    ),
}


MODEL = toy_model(streams=3)
GRIDS = replace(MODEL, nets=[*MODEL.nets, toy_grid_tower()])
TILES = replace(TOY, nets=[*TOY.nets, toy_tile_tower()])
NEEDED = "f32[16, 8], i32[16, 2], f32[1, 1, 16, 16]"

CLIENT_RULES |= {
    "a tower with memory of its own": (
        with_net(GRIDS, "vit", lambda net: replace(net, addr_mode=AddrMode.IO_ALONE)),
        "net vit has addr_mode IO_ALONE, clients need BASIC",
    ),
    "wide features": (
        with_stage(GRIDS, "vit", reshaped("outputs", 0, shape=(4, 4))),
        "net vit has the outputs bf16[4, 4], clients need bf16[4, 8]",
    ),
    "features of another type": (
        with_stage(TILES, "vit", reshaped("outputs", 0, dtype="f16")),
        "net vit has the outputs f16[2, 8], clients need bf16[2, 8]",
    ),
    "a patch for each token": (
        with_stage(GRIDS, "vit", reshaped("outputs", 0, shape=(8, 8))),
        "net vit makes 8 tokens of 16 patches, clients need a square for each",
    ),
    "pixels of 16 bits": (
        with_stage(GRIDS, "vit", reshaped("inputs", 0, dtype="bf16")),
        "net vit has the inputs bf16[16, 8], i32[16, 2]",
    ),
    "places in one number": (
        with_stage(GRIDS, "vit", reshaped("inputs", 1, shape=(16, 1))),
        f"i32[16, 1], f32[1, 1, 16, 16], f32[1, 1, 16, 16], i32[4], clients need {NEEDED}, f32[1, 1, 16, 16], i32[4]",
    ),
    "a mask of few rows": (
        with_stage(GRIDS, "vit", reshaped("inputs", 3, shape=(1, 1, 8, 16))),
        f"clients need {NEEDED}, f32[1, 1, 16, 16], i32[4]",
    ),
    "an order of patches": (
        with_stage(GRIDS, "vit", reshaped("inputs", 4, shape=(16,))),
        f"clients need {NEEDED}, f32[1, 1, 16, 16], i32[4]",
    ),
    "windows and no order": (
        with_stage(GRIDS, "vit", lambda stage: replace(stage, inputs=stage.inputs[:4])),
        f"clients need {NEEDED}",
    ),
    "no features": (
        with_stage(GRIDS, "vit", lambda stage: replace(stage, outputs=[])),
        "net vit has the outputs , clients need bf16[0, 8]",
    ),
    "two tiles": (
        with_stage(TILES, "vit", reshaped("inputs", 0, shape=(2, 1, 1, 8))),
        "net vit has the inputs f32[2, 1, 1, 8], clients need f32[1, 1, 1, 8]",
    ),
    "two positions": (
        with_stage(GRIDS, "block_0", reshaped("inputs", 1, shape=(2, 8))),
        "net block_0 has the inputs bf16[1, 8, 8], i32[2, 8], bf16[1, 1, 8, 8], clients need bf16[1, 8, 8], i32[1, 8]",
    ),
    "one position in decode": (
        with_stage(GRIDS, "block_cache_1", reshaped("inputs", 1, shape=(1, 1))),
        "net block_cache_1 has the inputs bf16[1, 1, 8], i32[1, 1], bf16[1, 1, 1, 13]",
    ),
}


@pytest.mark.parametrize("model", [GRIDS, TILES], ids=["grids", "tiles"])
def test_a_file_with_a_tower_is_sound(problems, model):
    assert problems(model) == []


def test_a_tower_without_windows_has_three_inputs(problems):
    model = with_stage(GRIDS, "vit", lambda stage: replace(stage, inputs=stage.inputs[:3]))
    assert not any(problem.startswith("net vit has the") for problem in problems(model))


def test_a_file_with_stages_is_sound(problems):
    assert problems(STAGED) == []


@pytest.mark.parametrize("case", CLIENT_RULES)
def test_rules_of_clients(problems, case):
    model, message = CLIENT_RULES[case]
    found = problems(model)
    assert any(message in problem for problem in found), found


def test_heads_that_choose_have_logits_and_memory_of_their_own(problems):
    """A head that gives logits, and a net that takes other ones, in memory that it shares."""
    model = with_stage(TOY, "lm_head", reshaped("outputs", 0, dtype="f32", shape=(1, 9)))
    head = model.net("lm_head")
    chooses = replace(head.stages[0], inputs=head.stages[0].outputs, outputs=TOY.net("lm_head").stages[0].outputs)
    greedy = Net("greedy_head", AddrMode.IO_ALONE, [chooses])
    assert list(shape_problems(replace(model, nets=[*model.nets, greedy]))) == []
    shared = replace(greedy, addr_mode=AddrMode.BASIC)
    (problem,) = shape_problems(replace(model, nets=[*model.nets, shared]))
    assert "net greedy_head has addr_mode BASIC, clients need IO_ALONE" in problem
    wide = replace(greedy, stages=[reshaped("inputs", 0, shape=(1, 8))(chooses)])
    (problem,) = shape_problems(replace(model, nets=[*model.nets, wide]))
    assert "net greedy_head has the inputs f32[1, 8], clients need f32[1, 9]" in problem
    sampler = Net("sample_head", AddrMode.IO_ALONE, [chooses])
    found = list(shape_problems(replace(model, nets=[*model.nets, greedy, sampler])))
    assert any(f"net sample_head has the inputs f32[1, 9], clients need f32[1, 9], i32[1, {HISTORY}]" in each for each in found)


def test_what_a_client_keeps_in_shared_memory_is_behind_all_that_nets_work_in():
    """A sampler there, and takes fewer tokens than it has room for."""
    room = max(stage.ctx_size for net in TOY.nets for stage in net.stages)
    stage = TOY.net("lm_head").stages[0]
    parts = {
        which: [replace(each, address=each.address + room) for each in getattr(stage, which)] for which in ("inputs", "outputs")
    }
    behind = replace(stage, **parts, ctx_size=stage.ctx_size + room, is_dynamic=True)

    def said(stage: Stage) -> list[str]:
        model = replace(TOY, nets=[*TOY.nets, Net("sample_head", AddrMode.BASIC, [stage])])
        return [problem for problem in shape_problems(model) if "has the" not in problem]

    assert said(behind) == []
    assert said(replace(behind, is_dynamic=False)) == [
        "net sample_head takes only as many tokens as it has room for, clients give it fewer"
    ]
    (problem,) = said(replace(stage, is_dynamic=True))
    assert "works where clients keep the inputs of sample_head" in problem


def test_partial_overlap_at_the_handover(problems):
    """embedding's output a few bytes from block_0's input, measured from the start of the scratch memory."""
    block = TOY.net("block_0").stages[0]
    at = block.inputs[0].address - block.ctx_address
    base = TOY.net("embedding").stages[0].ctx_address
    model = with_stage(TOY, "embedding", reshaped("outputs", 0, address=base + at + 16))
    assert "embedding's output and block_0's input 0 overlap in part" in problems(model)


def test_a_session_is_told_what_it_lacks():
    """The rules of a session alone: addresses are for other clients, names beyond the three are no matter."""
    assert list(shape_problems(TOY)) == []
    assert list(shape_problems(with_net(TOY, "lm_head", renamed("x")))) == ["it has no net 'lm_head'"]
    assert list(shape_problems(with_net(TOY, "block_cache_0", renamed("x")))) == ["it has no net 'block_cache_0'"]
    assert list(shape_problems(with_stage(TOY, "block_1", moved))) == []
    assert len(list(shape_problems(with_net(TOY, "block_0", alone)))) == 1


def alone(net: Net) -> Net:
    return replace(net, addr_mode=AddrMode.IO_ALONE)


def test_sizes_of_nothing_are_refused():
    """A cache of no tokens, in a file that agrees with itself."""
    model = toy_model(layers=1)
    for index, shape in ((2, (1, 1, 1, 1)), (3, (1, 0, 1, 2)), (4, (1, 0, 1, 2))):
        model = with_stage(model, "block_cache_0", reshaped("inputs", index, shape=shape))
    (problem,) = shape_problems(model)
    assert problem.startswith("net block_cache_0 has the inputs ")


def test_what_is_no_language_model_needs_none_of_it():
    assert list(model_problems(Program(add_model()))) == []
    assert list(model_problems(Program(TOY))) == []


def shifted(stage: Stage) -> Stage:
    """The stage with its states a little after where block_0 has them."""
    (states,) = stage.outputs
    return replace(stage, outputs=[replace(states, address=stage.ctx_address + PAGE + 64)])


CASCADE = toy_cascade(2)
DEVICE_RULES = {
    "heads": (
        with_info(CASCADE, "block_0_1_0", "outputs", 2, shape=(1, 8, 2, 1)),
        "net block_0 has the outputs bf16[1, 8, 8], bf16[1, 8, 2, 1], bf16[1, 8, 1, 2], clients need "
        "bf16[1, 8, 8], bf16[1, 8, 1, 2], bf16[1, 8, 1, 2] (device 1)",
    ),
    "a head on two devices": (
        replace(CASCADE, nets=[*CASCADE.nets, replace(CASCADE.nets[-1], name="h", cascade=Cascade("lm_head", 1))]),
        "net lm_head has inputs of the devices [0, 1], clients need [0]",
    ),
    "an embedding on one": (
        replace(CASCADE, nets=[net for net in CASCADE.nets if net.name != "embedding_1_0"]),
        "net embedding has outputs of the devices [0], clients need [0, 1]",
    ),
    "no memory of its own": (
        replace(CASCADE, nets=[replace(n, addr_mode=AddrMode.BASIC) if n.main_name == "block_cache_1" else n
                               for n in CASCADE.nets]),
        "net block_cache_1 has addr_mode BASIC, clients need IO_ALONE",
    ),
    "states in part over others": (
        with_stage(CASCADE, "embedding_1_0", shifted),
        "net embedding has states in part where block_0 gives states (device 1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", DEVICE_RULES)
def test_what_clients_of_several_devices_rely_on(broken):
    assert list(model_problems(Program(CASCADE))) == []
    model, message = DEVICE_RULES[broken]
    problems = list(model_problems(Program(model)))
    assert message in problems
