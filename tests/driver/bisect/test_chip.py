"""Mistakes in instructions, in their places and in the file: the op, the field or the weight is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import bmodel_tool
from compiler.ir.core import Op
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.target.isa import Instruction
from dialects import chip
from dialects.weights import Packed
from runtime_sim.launch.loader import Region
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.launch.runtime import RuntimeNet
from tests.driver.bisect.broken import LAYER, Compiled, change_dump, check, ops


def swap_keys_and_values(function: Function) -> Op:
    """The tile of q, k and v is packed in another order."""
    weights = [op for op in ops(function, chip.GlobalOp) if isinstance(op.source, Packed)]
    tile = next(op for op in weights if len(op.source.names) == 3)
    q, k, v = tile.source.names
    tile.source = replace(tile.source, names=(q, v, k))
    return tile


def shift_result(function: Function) -> Op:
    """The product of gate and up is read one EU width behind its place."""
    op = ops(function, chip.MatmulOp, "mlp")[-1]
    op.attributes["res"] = replace(op.attributes["res"], offset=64)
    return op


@pytest.mark.parametrize(
    ("change", "place", "name"),
    [
        (swap_keys_and_values, "self_attn.v_proj", "tensor.dequantize"),
        (shift_result, "mlp.act_fn", "tensor.linear"),
    ],
)
def test_a_mistake_in_the_instructions_is_found_at_the_value_they_make(compiled, dumps, change, place, name):
    change_dump(dumps, "tensor-to-chip", change)
    report = compiled.report("block_0", dumps)
    assert "in pass tensor-to-chip, " in report[-2]
    assert report[-1].startswith("first op: ")
    assert place in report[-1].splitlines()[0]
    assert name in report[-1].splitlines()[1]


def test_a_buffer_placed_over_another(compiled, dumps):
    """The gain of the second norm lies where the queries are put before it is read."""

    def change(function: Function) -> Op:
        loads = ops(function, chip.DmaOp, "post_attention_layernorm")
        gain, product = loads[0].operands[0], ops(function, chip.MatmulOp)[0].operands[0]
        gain.owner.offset = product.owner.offset
        return next(op for op in gain.users if not isinstance(op, chip.DmaOp))

    line = change_dump(dumps, "allocate-local", change)
    check(compiled.report("block_0", dumps), "allocate-local", f"{LAYER}.post_attention_layernorm", line)


def test_an_address_shifted_in_the_last_dump(compiled, dumps):
    def change(function: Function) -> Op:
        store = ops(function, chip.MatmulOp)[0]
        store.attributes["res"] = replace(store.attributes["res"], offset=64)
        return store

    change_dump(dumps, "insert-waits", change)
    report = compiled.report("block_0", dumps)
    assert "in pass insert-waits, " in report[-2]
    assert f"first op: {LAYER}.self_attn" in report[-1]


def test_a_program_that_cannot_run(compiled, dumps):
    def change(function: Function) -> Op:
        op = ops(function, chip.MatmulOp)[-1]
        op.operands[0].owner.offset = 1 << 18
        return op

    change_dump(dumps, "allocate-local", change)
    report = compiled.report("block_0", dumps)
    assert "in pass allocate-local, " in report[-2]
    assert "lane" in report[-1]


def with_field(net: RuntimeNet, index: int, field: str, change: int) -> RuntimeNet:
    """A net with one field of one of its DMA's instructions changed."""
    (core,) = net.program.cores
    dma = list(core.dma)
    old = dma[index]
    dma[index] = Instruction(old.name, old.kind, old.fields | {field: old.fields[field] + change}, old.size)
    return RuntimeNet(replace(net.program, cores=[CoreProgram(core.tiu, dma)]), net.memories, net.machines)


def test_an_address_shifted_in_the_file(compiled):
    report = compiled.broken_file("block_0", lambda net: with_field(net, 1, "src_start_addr_l32", 4))
    assert "in the file" in report[-2]
    assert f"first op: {LAYER}.input_layernorm, in the file src_start_addr_l32 is " in report[-1]


def corrupt(compiled: Compiled, path: Path) -> None:
    """A copy of the file in which the weights of the first linear layer are zero."""
    net = compiled.suspects["block_0"].run.net
    (tile,) = net.memories[Region.COEFF][None]
    data = compiled.file.read_bytes()
    start = data.index(tile.tobytes())
    (dump,) = compiled.dumps.glob("block_0.*.insert-waits.mlir")
    function = parse_module(dump.read_text()).function("block")
    first = next(op for op in ops(function, chip.GlobalOp) if isinstance(op.source, Packed))
    base = compiled.suspects["block_0"].session.runtime.program.spec.coeff_base
    begin = start + first.address - base
    size = first.buffer.type.bytes
    path.write_bytes(data[:begin] + bytes(size) + data[begin + size :])


def test_a_weight_lost_in_the_file(compiled, tmp_path, capsys):
    """By the command."""
    file = tmp_path / "broken.bmodel"
    corrupt(compiled, file)
    arguments = ["verify", str(file), "--reference", str(compiled.checkpoint), "--ir", str(compiled.dumps)]
    assert bmodel_tool.main(arguments) == 1
    *_, passes, op, line = capsys.readouterr().out.splitlines()
    assert "block_0 parts from the reference in the file, after " in passes
    assert f"first op: {LAYER}.self_attn.q_proj, " in op
    assert "bytes are others in the file" in op
    assert "insert-waits.mlir:" in line
