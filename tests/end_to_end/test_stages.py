"""A tiny model through every stage: each stage of each net is run and compared with the one before."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.core import Op
from compiler.ir.types import F32, TensorType
from dialects.chip import Instruction
from dialects.nets import net_of
from driver.bisect.values import Values
from frontend.importer import import_model
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.end_to_end.placed_values import place_values
from tests.end_to_end.tiny import ROUNDING, ROUNDING_F16, SUMMING, Net, Tiny, check_close, fused

WIDE = {"intermediate": 2304}  # too wide for one tile
CASES = [
    ("llama", "bf16", WIDE),
    ("qwen2", "bf16", {"layers": 1}),
    ("qwen3", "bf16", {}),
    ("llama", "w4bf16", WIDE),
    ("qwen2", "w8bf16", {"layers": 1}),
    ("qwen3", "f16", {"layers": 1}),
    ("llama", "w4bf16", {"mlp_bias": True, **WIDE}),
    ("qwen3", "bf16", {"layers": 1, "attention_bias": True, "head_dim": 32}),
    ("llama", "w8f16", {"layers": 1}),
    ("qwen2", "w4f16", {}),
    ("qwen3", "f16", {"layers": 1, "hidden": 250, "heads": 5, "kv_heads": 1, "head_dim": 50, "intermediate": 358}),
]


@pytest.mark.parametrize(("family", "mode", "sizes"), CASES)
def test_every_stage_computes_what_the_one_before_does(tiny, family, mode, sizes):
    model = tiny(family, mode, sizes)
    for name in ("embedding", "embedding_cache", *model.last_layer, "lm_head"):
        net = model.nets[name]
        inputs = model.inputs(net)
        said, done = Values(), Values()
        llm, tensor = model.run(net, "llm", inputs, said), model.run(net, "tensor", inputs, done)
        rounding = ROUNDING if "bf16" in mode else ROUNDING_F16
        far = [place for place, cosine in cosines(said, done).items() if not cosine >= rounding]
        assert not far, f"{name}, llm to tensor"
        check_close(net, tensor, llm, rounding)
        chip, placed, file = (model.run(net, stage, inputs) for stage in ("chip", "placed", "file"))
        check_close(net, chip, tensor, SUMMING)
        assert not different(chip, placed), f"{name}, addresses: parts at {parting_of_programs(model, net)}"
        assert not different(placed, file), f"{name}: {[str(compare(*p)) for p in zip(file, placed, strict=True)]}"


@pytest.mark.parametrize(("family", "mode"), [("qwen3", "bf16"), ("qwen2", "w4f16")])
def test_every_value_lies_where_it_was_put(tiny, family, mode):
    """Memory after the chip program, against the tensor level, value by value."""
    model = tiny(family, mode, {})
    for net in (model.nets["block_1"], model.nets["block_cache_1"], model.nets["lm_head"]):
        function, inputs = net.stages["tensor"].clone(), model.inputs(net)
        pairs = list(
            place_values(
                function,
                model.options.spec,
                lambda watch, f=function, n=net, i=inputs: interpret(
                    f, i, model.reader(n), model.model.tables, watch, model.codes(n)
                ),
                inputs,
                model.materializer(net),
            )
        )
        results = [result.type for op in net.stages["tensor"].block.ops for result in op.results]
        assert len(pairs) >= sum(isinstance(type_, TensorType) for type_ in results) * 0.9
        for pair in pairs:
            difference = compare(pair.found, pair.wanted)
            assert difference.cosine > SUMMING, f"{net.name}: {difference} in {pair.what}"


def test_16_bit_stays_close_to_float32(tiny):
    model = tiny("qwen3", "bf16", {})
    options = model.options
    exact = import_model(options.model_path, options.seq_length, options.input_length, F32)
    for group in exact.nets:
        if not group.of_layers:
            continue
        module = fused(group.module, options)
        for function in module.functions():
            net = model.nets[net_of(function).name_for(group.instances[0].layer)]
            inputs = model.inputs(net)
            wide = [x if x.dtype == np.int32 else x.astype(np.float32) for x in inputs]
            precise, rounded = Values(), Values()
            wanted = interpret(function, wide, model.reader(net), exact.tables, precise)
            check_close(net, model.run(net, "llm", inputs, rounded), wanted, ROUNDING)
            found = cosines(precise, rounded)
            assert len(found) > 5
            assert min(found.values()) >= ROUNDING


def test_the_file_holds_the_instructions_of_its_ir(tiny):
    model = tiny("qwen2", "w4f16", {})
    for name, net in model.nets.items():
        ir = ChipProgram(net.stages["placed"], model.options.spec, model.materializer(net))
        ops = [op for op in net.stages["placed"].block.ops if isinstance(op, Instruction)]
        (core,) = model.runtime.net(name).program.cores
        for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
            queue = [op for op in ops if op.engine == engine]
            for op, found in zip(queue, stream[:-1], strict=True):
                wanted = ir.instruction(op).fields | {"cmd_id": op.id, "cmd_id_dep": op.wait}
                assert found.fields == wanted, f"{op} became {found}"


def cosines(reference: Values, actual: Values) -> dict[str, float]:
    """Of the last values at each place of the model where both made equally many numbers."""
    wanted, found = ({made.place: made.array for made in values.made} for values in (reference, actual))
    return {
        place: compare(found[place].reshape(array.shape), array).cosine
        for place, array in wanted.items()
        if place in found and found[place].size == array.size
    }


def different(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return any(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))


def parting_of_programs(model: Tiny, net: Net) -> str:
    """The first instruction of the program without addresses that writes something else with them."""
    written: dict[str, list[tuple[Op, np.ndarray]]] = {"chip": [], "placed": []}
    for stage, log in written.items():
        model.run(net, stage, model.inputs(net), lambda op, array, log=log: log.append((op, array)))
    pairs = zip(*written.values(), strict=True)
    return next(f"{op} at {op.loc}" for (op, a), (_, b) in pairs if a.tobytes() != b.tobytes())
