"""Models on both cores of BM1688: in every order they say what one core says, and each wait is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bmodel_tool import main
from compiler.bmodel import read_bmodel
from compiler.diagnostics import CompileError
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from runtime_sim.check.contract import check_file, moved_of
from runtime_sim.check.waits import prove_waits
from runtime_sim.launch.loader import Program
from runtime_sim.launch.orders import core_ahead, run_ahead, shuffled
from runtime_sim.launch.queues import Choose
from runtime_sim.tool.chat import open_session
from tests.runtime_sim.check.cores import mutants
from tests.runtime_sim.tool.page import page_data

SIZES = {"layers": 1, "hidden": 96, "heads": 3, "kv_heads": 3, "head_dim": 32, "intermediate": 160, "vocab": 300}
PROMPT = [3, 17, 200, 5, 90]


@pytest.fixture(scope="module")
def compiled(tiny_checkpoint, tmp_path_factory) -> Callable[[int], Path]:
    """The file for so many cores, with dumps in ir/ beside its folder."""

    @cache
    def compile_(cores: int) -> Path:
        folder = tmp_path_factory.mktemp("compiled")
        options = ConvertOptions(
            tiny_checkpoint("qwen3", **SIZES), 40, "w4bf16", q_group_size=32, chip="bm1688", num_core=cores,
            out_dir=folder / "out", dump_ir=folder / "ir", jobs=1,
        )  # fmt: skip
        file = convert(replace(options, passes=default_pipeline(options)))
        assert file is not None
        return file

    return compile_


@pytest.fixture(scope="module")
def program(compiled) -> Program:
    return Program(read_bmodel(compiled(2)))


def tokens_of(file: Path, order: Choose | None = None) -> list[int]:
    return open_session(file, file.parent / "config", exact=True, order=order).generate(PROMPT, 6)


def test_two_cores_say_in_every_order_what_one_says(compiled):
    wanted = tokens_of(compiled(1))
    for order in (None, core_ahead(0), core_ahead(1), run_ahead("dma"), run_ahead("tiu"), shuffled(0)):
        assert tokens_of(compiled(2), order) == wanted


def test_each_net_computes_what_the_reference_does(compiled, tiny_checkpoint, capsys):
    file, reference = compiled(2), tiny_checkpoint("qwen3", **SIZES)
    look = ["--ir", str(file.parent.parent / "ir"), "--bisect", "block_0"]
    assert main(["verify", str(file), "--reference", str(reference), *look]) == 0
    told = capsys.readouterr().out
    assert "the file computes what" in told
    assert "block_0 does not part from the reference" in told


@pytest.mark.parametrize("name", ["block_0", "block_cache_0", "lm_head"])
def test_every_send_wait_and_dependency_is_needed(program, name):
    stage = program.stage(name)
    moved = moved_of(stage)
    prove_waits(stage.cores, program.spec, moved)
    changes = list(mutants(stage.cores))
    assert sum("send" in what for what, _ in changes) > 5
    for _what, cores in changes[:: max(1, len(changes) // 50)]:
        with pytest.raises(CompileError, match=r"nothing orders|never ends|left in use"):
            prove_waits(cores, program.spec, moved)


def test_tools_show_both_cores(compiled, program, tmp_path, capsys):
    file, page = str(compiled(2)), tmp_path / "page.html"
    assert check_file(program) == []
    assert main(["info", file]) == 0
    assert main(["disasm", file, "block_cache_0"]) == 0
    out = capsys.readouterr().out
    assert "\n1 tiu " in out
    assert "\n1 dma " in out
    assert "message 30 of 2" in out
    assert main(["timing", file]) == 0
    assert re.search(r"1 layers +plain +cautious +roofline +roofline, DDR shared\n", capsys.readouterr().out)
    arguments = ["timing", file, "--json", "--html", str(page), "--ir", str(compiled(2).parent.parent / "ir")]
    assert main(arguments) == 0
    figures = {net["net"]: net for net in json.loads(capsys.readouterr().out)["nets"]}["block_cache_0"]
    assert 0 < figures["roofline"] < figures["roofline_cautious"] < figures["cycles_cautious"]
    nets = {net["title"]: net for net in page_data(page)["nets"]}
    cores = nets["block_cache_0"]["cores"]
    assert all(len(core[engine]["module"]["names"]) > 5 for core in cores for engine in ("tiu", "dma"))
    assert [len(core["dma"]["text"]) for core in cores] == [len(core.dma) for core in program.stage("block_cache_0").cores]
