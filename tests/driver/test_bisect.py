"""A mistake in one dump, or in the file: the pass that it is in and the op at which it is are found."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bmodel_tool
from compiler.diagnostics import UserError
from compiler.ir.core import Op
from compiler.ir.module import Function
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.target.isa import Instruction
from dialects import chip, llm, tensor
from dialects.weights import Packed
from driver import bisect
from driver.bisect.dumps import DumpedNet
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import Effort, default_pipeline
from runtime_sim.launch.loader import Region
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.launch.runtime import RuntimeNet
from runtime_sim.tool.agreement import LIMITS
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import Verifier
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.verify import Suspect

LAYER = "model.layers.0"
SIZES = {"hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256}


class Compiled:
    """A tiny model with its dumps, and a suspect for each of its nets."""

    def __init__(self, checkpoint: Path, out: Path, mode: str = "bf16", tokens: int = 0) -> None:
        self.checkpoint, self.dumps = checkpoint, out / "ir"
        length = 2 * tokens or 64
        options = ConvertOptions(checkpoint, length, mode, out_dir=out / "out", dump_ir=self.dumps, jobs=1)
        passes = default_pipeline(options, Effort(tokens=tokens))
        self.file = convert(replace(options, passes=passes))
        session = open_session(self.file, checkpoint, False)
        reference = Reference(checkpoint)
        prompt = [int(token) for token in np.random.default_rng(1).integers(0, 1024, 12)]
        verifier = Verifier(session, reference, prompt)
        self.suspects = {
            name: Suspect(next(runs), session, reference, verifier.tokens, LIMITS[16])
            for name, runs in verifier.nets()
        }

    def report(self, net: str, dumps: Path | None = None) -> list[str]:
        return list(bisect.bisect_net(self.suspects[net], dumps or self.dumps))

    def broken_file(self, net: str, change: Callable[[RuntimeNet], RuntimeNet]) -> list[str]:
        """The report on a net whose place in the file another one takes."""
        suspect = self.suspects[net]
        run = replace(suspect.run, net=change(suspect.run.net))
        return list(bisect.bisect_net(replace(suspect, run=run), self.dumps))


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint, tmp_path_factory):
    return Compiled(tiny_checkpoint("qwen3", layers=3, **SIZES), tmp_path_factory.mktemp("bisect"))


@pytest.fixture
def dumps(compiled, tmp_path):
    return Path(shutil.copytree(compiled.dumps, tmp_path / "ir"))


def change_dump(dumps: Path, name: str, change: Callable[[Function], Op]) -> tuple[str, int]:
    """Change @block of a dump; the name of its file, and the line of the op that `change` gives."""
    (path,) = dumps.glob(f"block_0.*.{name}.mlir")
    header, _, text = path.read_text().partition("\n")
    module = parse_module(text)
    op = change(module.function("block"))
    positions: dict[Op, tuple[int, int]] = {}
    path.write_text(f"{header}\n{print_module(module, positions=positions)}")
    return path.name, positions[op][0] + 1


def ops(function: Function, kind: type[Op], place: str = "") -> list[Op]:
    return [op for op in function.block.ops if isinstance(op, kind) and str(op.loc).endswith(place)]


def drop_gain(place: str) -> Callable[[Function], Op]:
    def change(function: Function) -> Op:
        (norm,) = ops(function, llm.RmsNormOp, place)
        norm.set_operands(norm.operands[:1], (1, 0))
        return norm

    return change


def drop_recorded_weight(place: str) -> Callable[[Function], Op]:
    """As it is recorded, a norm is arithmetic that ends with a product."""

    def change(function: Function) -> Op:
        products = ops(function, llm.MulOp, place)
        (product,) = (op for op in products if any(x.defining(llm.WeightOp) for x in op.operands))
        product.set_operands([x for x in product.operands if x.defining(llm.WeightOp) is None], (1, 0))
        product.value = 1.0
        return product

    return change


def swap_rope(function: Function) -> Op:
    """Rotate the keys in the other direction: their rows of the table negated."""
    rope = ops(function, tensor.RopeOp)[1]
    negated = tensor.MulOp(rope.rows, scalar=-1.0, loc=rope.loc)
    rope.parent.insert_before(rope, negated)
    rope.set_operand(1, negated.results[0])
    return rope


def check(report: list[str], pass_name: str, place: str, line: tuple[str, int]) -> None:
    assert f"in pass {pass_name}, " in report[-2]
    assert report[-2].endswith(line[0])
    assert report[-1].startswith(f"first op: {place}, ")
    assert f"{line[0]}:{line[1]}:" in report[-1]


@pytest.mark.parametrize("place", ["input_layernorm", "self_attn.q_norm", "post_attention_layernorm"])
def test_a_norm_weight_lost_in_an_llm_pass(compiled, dumps, place):
    line = change_dump(dumps, "fuse-qkv", drop_gain(place))
    check(compiled.report("block_0", dumps), "fuse-qkv", f"{LAYER}.{place}", line)


@pytest.mark.parametrize("net", ["block_0", "block_1"])
def test_a_norm_weight_lost_in_the_import(compiled, dumps, net):
    """Layers 0 and 1 are made from one module."""
    change_dump(dumps, "input", drop_recorded_weight("self_attn.k_norm"))
    report = compiled.report(net, dumps)
    assert "before any pass" in report[-2]
    assert f"first module: {LAYER}.self_attn.k_norm, " in report[-1]


def test_a_wrong_rotation_in_the_import_shows_at_the_next_module(compiled, dumps):
    def change(function: Function) -> Op:
        negation = ops(function, llm.NegOp)[0]
        negation.y.replace_by(negation.x)
        return negation

    change_dump(dumps, "input", change)
    text = compiled.report("block_0", dumps)[-1]
    assert f"first module: {LAYER}.self_attn.o_proj, " in text
    assert f"{LAYER}.self_attn.v_proj before it agrees" in text


@pytest.mark.parametrize("name", ["llm-to-tensor", "tile-weights"])
def test_a_wrong_rotation_in_a_tensor_pass(compiled, dumps, name):
    line = change_dump(dumps, name, swap_rope)
    check(compiled.report("block_0", dumps), name, f"{LAYER}.self_attn", line)


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


@pytest.mark.parametrize("net", ["embedding", "embedding_cache", "block_1", "block_cache_2", "lm_head"])
def test_a_net_without_mistake_does_not_part(compiled, net):
    report = compiled.report(net)
    assert report[-1] == f"{net} does not part from the reference"
    assert all("cosine 0.9999" in line or "cosine 1.0000" in line for line in report[:-1])


@pytest.mark.parametrize("name", ["block_0", "block_cache_0"])
def test_no_op_of_a_net_without_mistake_parts(compiled, name):
    assert list(partings(compiled, name)) == []


# Steps inside of a place have the size of what it computes: the product of a tile of gate and one of up has that
# of the gated whole, and probabilities of 2 heads that of the output of the attention.
MISLEADING = {"intermediate": 2048, "mlp_bias": True, "heads": 2, "kv_heads": 1}


@pytest.mark.parametrize(
    ("family", "mode", "tokens", "sizes"),
    [("qwen2", "f16", 0, {"kv_heads": 4}), ("llama", "w4bf16", 64, MISLEADING)],
)
def test_no_op_parts_where_programs_are_cut(tiny_checkpoint, tmp_path, family, mode, tokens, sizes):
    """Prompts in runs of 64, weights in tiles, values of equal size that are not the same."""
    compiled = Compiled(tiny_checkpoint(family, layers=1, **sizes), tmp_path, mode, tokens)
    assert [*partings(compiled, "block_0"), *partings(compiled, "block_cache_0")] == []


def partings(compiled: Compiled, name: str) -> Iterator[str]:
    """What is said to part in a net that is right."""
    net = DumpedNet.of(compiled.suspects[name], compiled.dumps)
    stages = list(net.stages())
    assert len(stages) > 10
    for before, stage in itertools.pairwise(stages):
        found = bisect.first_op(net, before, stage)
        if found and "only with padding" not in found and stage.pass_name != "quantize-weights":
            yield found
    if found := bisect.first_module(net, stages[0]):
        yield found
    if "first op" in (found := bisect.differs_in_file(net, stages[-1])):
        yield found


def test_dumps_of_another_model_are_refused(compiled, dumps):
    for path in dumps.iterdir():
        path.write_text(path.read_text().replace("x128x", "x512x"))
    with pytest.raises(UserError, match="was not made with this file: its inputs are"):
        compiled.report("block_0", dumps)


def test_a_folder_without_dumps_is_refused(compiled, dumps):
    next(dumps.glob("block_0.*.fuse-qkv.mlir")).unlink()
    with pytest.raises(UserError, match=r"fuse-qkv\.mlir is missing: compile again with --dump-ir"):
        compiled.report("block_0", dumps)
    with pytest.raises(UserError, match="has no dump of block: compile again with --dump-ir"):
        compiled.report("block_0", dumps / "elsewhere")
