"""Mistakes put into a compiled model on purpose: each must be caught by what guards against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.ir.module import Function
from compiler.target.isa import Instruction
from dialects import llm, tensor
from runtime_sim.check.waits import find_race
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.launch.runtime import RuntimeNet
from tests.compare import compare
from tests.end_to_end.tiny import ROUNDING, Net, Tiny

NETS = ("block_1", "block_cache_1", "lm_head")


@pytest.fixture(scope="module")
def model(tiny) -> Tiny:
    return tiny("qwen3", "bf16", {})


def with_field(core: CoreProgram, engine: str, index: int, **fields: int) -> CoreProgram:
    """A core's program with one instruction changed."""
    streams = {"tiu": list(core.tiu), "dma": list(core.dma)}
    old = streams[engine][index]
    streams[engine][index] = Instruction(old.name, old.kind, old.fields | fields, old.size)
    return CoreProgram(streams["tiu"], streams["dma"])


@pytest.mark.parametrize("name", NETS)
def test_every_wait_that_is_dropped_is_a_race(model, name):
    (core,) = model.runtime.net(name).program.cores
    assert find_race([core], model.options.spec) is None
    tried = 0
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        for index, instruction in enumerate(stream):
            if instruction.kind != "end" and instruction.fields["cmd_id_dep"]:
                tried += 1
                race = find_race([with_field(core, engine, index, cmd_id_dep=0)], model.options.spec)
                assert race is not None, f"nobody needs {instruction}"
    assert tried > 3


@pytest.mark.parametrize("name", ["block_1", "block_cache_1"])
def test_an_address_that_is_shifted_changes_the_result(model, name):
    """One EU width off, in some instruction of the file: another result, or a program that cannot run."""
    net = model.nets[name]
    inputs = model.inputs(net)
    wanted = [a.tobytes() for a in model.run(net, "file", inputs)]
    (core,) = model.runtime.net(name).program.cores
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        for index in range(0, len(stream) - 1, max(1, len(stream) // 8)):
            field = address_field(stream[index], index)
            shifted = stream[index].fields[field] ^ 64
            found = outputs_of(model, name, with_field(core, engine, index, **{field: shifted}), inputs)
            assert found != wanted, f"{field} of {stream[index]} does not matter"


def address_field(instruction: Instruction, index: int) -> str:
    """Of the result for even indices, of the first operand for odd ones (unless it is a number)."""
    if instruction.engine == "dma":
        return "src_start_addr_l32" if index % 2 else "dst_start_addr_l32"
    return "opd0_addr" if index % 2 and not instruction.fields.get("opd0_const") else "res0_addr"


def outputs_of(model: Tiny, name: str, core: CoreProgram, inputs: list[np.ndarray]) -> list[bytes] | None:
    """What a net computes with other instructions; None when it cannot run."""
    net = model.runtime.net(name)
    changed = RuntimeNet(replace(net.program, cores=[core]), net.memories, net.machines)
    for buffer, array in zip(changed.inputs, inputs, strict=True):
        buffer.array[...] = array
    try:
        model.runtime.launch(changed)
    except CompileError:
        return None
    return [buffer.data.tobytes() for buffer in changed.outputs]


def changed(model: Tiny, net: Net, function: Function) -> float:
    """The smallest cosine of a changed function's outputs with those of the model."""
    inputs = model.inputs(net)
    wanted = model.run(net, "llm", inputs)
    broken = Net(net.name, net.instance, {"llm": function, "tensor": function})
    found = model.run(broken, "tensor", inputs)
    return min(compare(a, b).cosine for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", ["block_1", "block_cache_1"])
def test_a_swapped_rope_mode_is_caught(model, name):
    net = model.nets[name]
    function = net.stages["llm"].clone()
    for op in function.block.ops:
        if isinstance(op, llm.RopeOp):
            op.mode = "interleaved"
    assert changed(model, net, function) < ROUNDING


@pytest.mark.parametrize("name", ["block_1", "block_cache_1"])
def test_every_dropped_norm_weight_is_caught(model, name):
    net = model.nets[name]
    count = sum(isinstance(op, llm.RmsNormOp) for op in net.stages["llm"].block.ops)
    assert count == 4, "input, q, k, post attention"
    for index in range(count):
        function = net.stages["llm"].clone()
        norm = [op for op in function.block.ops if isinstance(op, llm.RmsNormOp)][index]
        norm.set_operands(norm.operands[:1], (1, 0))
        assert changed(model, net, function) < ROUNDING, f"norm {index}"


def test_a_dropped_gain_on_the_tensor_level_is_caught(model):
    """The multiplication by a norm's weight replaced by what it multiplies."""
    net = model.nets["block_cache_1"]
    function = net.stages["tensor"].clone()
    gains = [op for op in function.block.ops if isinstance(op, tensor.MulOp) and reads_a_weight(op)]
    assert len(gains) == 4
    for gain in gains:
        uses = gain.results[0].uses
        gain.results[0].replace_by(gain.lhs)
        assert changed(model, net, function) < ROUNDING, str(gain)
        for user, index in uses:
            user.set_operand(index, gain.results[0])


def reads_a_weight(op: tensor.MulOp) -> bool:
    load = None if op.rhs is None else op.rhs.defining(tensor.LoadOp)
    reshape = None if load is None else load.source.defining(tensor.ReshapeOp)
    return reshape is not None and reshape.x.defining(tensor.WeightOp) is not None
