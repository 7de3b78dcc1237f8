"""Modules of instructions, from the dumps of the last pass."""

from __future__ import annotations

import pytest

from compiler.target.isa import Instruction
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.tool.sources import Sources, read_functions

DUMP = """// passes-left:
"builtin.module"() ({
  "func.func"() <{sym_name = "block", function_type = () -> ()}> ({
    %0 = "chip.local"() <{offset = 64 : i64}> : () -> !chip.local<bytes = 64> loc("model.layers.7.norm")
    "chip.dma"(%0) <{kind = "copy"}> {chip.id = 1 : i64} : (!chip.local<bytes = 64>) -> () loc("model.layers.7.mlp")
    "chip.ar"(%0) <{kind = "add"}> {chip.id = 1 : i64, chip.wait = 1 : i64} : () -> () loc("model.layers.7.mlp.up_proj")
    "chip.ar"(%0) <{kind = "add"}> {chip.id = 2 : i64} : () -> ()
    "func.return"() : () -> ()
  }) {bm.net = #bm.net<name = "block", bound = "layer", inputs = [#bm.input<name = "x">]>} : () -> ()
  "func.func"() <{sym_name = "block_cache", function_type = () -> ()}> ({
    "chip.ar"(%0) <{kind = "add"}> {chip.id = 1 : i64} : () -> () loc(LOCATION)
  }) {bm.net = #bm.net<name = "block_cache", bound = "layer">} : () -> ()
}) : () -> ()
"""


def queue(*waits: int) -> list[Instruction]:
    return [Instruction("ar", "add", {"cmd_id_dep": wait}) for wait in waits]


def test_functions_and_their_instructions():
    block, cache = read_functions(DUMP.replace("LOCATION", '"model.norm"'))
    assert (block.net.name, cache.net.name) == ("block", "block_cache")
    assert (block.tiu.waits, block.dma.waits) == ([1, 0], [0])
    assert block.tiu.modules == ["model.layers.*.mlp.up_proj", ""]
    assert block.dma.modules == ["model.layers.*.mlp"]
    assert cache.tiu.modules == ["model.norm"]


@pytest.mark.parametrize(
    ("location", "module"),
    [
        ('fused["model.layers.28.attn.q_proj", "model.layers.28.attn.k_proj"]', "model.layers.*.attn.{q_proj, k_proj}"),
        ('fused["model.layers.28.mlp.down_proj", "model.layers.28"]', "model.layers.*.mlp.down_proj"),
        ('fused["model.norm", "lm_head"]', "model.norm, lm_head"),
    ],
)  # fmt: skip
def test_fused_locations(location, module):
    *_, cache = read_functions(DUMP.replace("LOCATION", location))
    assert cache.tiu.modules == [module]


def test_a_net_belongs_to_the_function_with_its_name_and_its_waits(tmp_path):
    (tmp_path / "block_0.12.earlier.mlir").write_text("nothing")
    (tmp_path / "block_0.13.insert-waits.mlir").write_text(DUMP)
    sources = Sources.read(tmp_path)
    with_end = CoreProgram(queue(1, 0, 0), queue(0, 0))
    other_waits = CoreProgram(queue(0, 0, 0), queue(0, 0))
    longer = CoreProgram(queue(1, 0, 0, 0), queue(0, 0))
    assert sources.find("block_3", with_end) is sources.functions[0]
    assert sources.find("block_cache_3", with_end) is None
    assert sources.find("block_3", other_waits) is None
    assert sources.find("block_3", longer) is None


def test_a_stage_belongs_to_its_own_function():
    stage = DUMP.replace('"block", bound = "layer", inputs = [#bm.input<name = "x">]', '"block", bound = "layer", stage = 1')
    both = Sources([*read_functions(DUMP), *read_functions(stage)])
    core = CoreProgram(queue(1, 0, 0), queue(0, 0))
    assert both.find("block_3", core) is both.functions[0]
    assert both.find("block_3.1", core) is both.functions[2]
    assert both.find("block_3.2", core) is None


CORE = """  "func.func"() <{sym_name = "block.core1", function_type = () -> ()}> ({
    "chip.send"(%0) <{message = 30 : i64}> {chip.id = 1 : i64, chip.wait = 2 : i64} : () -> () loc("model.norm")
    "chip.wait"(%0) <{message = 30 : i64}> {chip.id = 2 : i64} : () -> () loc("model.norm")
    "chip.ar"(%0) <{kind = "add"}> {chip.id = 1 : i64, chip.wait = 2 : i64} : () -> () loc("model.mlp")
  }) {bm.net = #bm.net<name = "block", stage = 1, part = #bm.part<core = 1, cores = 2>>} : () -> ()
"""


def test_messages_of_cores_are_of_the_dma():
    (core,) = read_functions(CORE)
    assert (core.dma.waits, core.tiu.waits) == ([2, 0], [2])
    assert (core.dma.modules, core.tiu.modules) == (["model.norm"] * 2, ["model.mlp"])
    assert core.net.stage == 1
