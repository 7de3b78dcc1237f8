"""The page of `timing`: what it draws, and what it is told to draw."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from compiler.bmodel import read_bmodel
from runtime_sim.launch.loader import Program
from tests.runtime_sim.check.cores import sum_model
from tests.runtime_sim.check.programs import add_model, toy_model
from tests.runtime_sim.tool.page import page_data


@pytest.fixture
def tool(tool):
    """Write a model, ask for its timing; exit code, output and errors."""
    return lambda model, *arguments: tool(model, "timing", *arguments)


def test_a_net_with_the_name_of_a_tag_is_drawn(tool, tmp_path):
    model = add_model()
    name = "<!--<script>"
    tool(replace(model, nets=[replace(model.nets[0], name=name)]), "--html", tmp_path / "page.html")
    assert page_data(tmp_path / "page.html")["nets"][0]["title"] == name


def test_a_page_that_cannot_be_written_is_told_first(tool, tmp_path):
    (tmp_path / "folder").mkdir()
    for page in (tmp_path / "none" / "page.html", tmp_path / "folder"):
        code, out, err = tool(add_model(), "--html", page)
        assert (code, out) == (2, "")
        assert f"cannot write {page}: " in err


def test_the_page_has_every_instruction_of_each_program_once(tool, tmp_path):
    page = tmp_path / "page.html"
    tool(toy_model(layers=3), "--html", page)
    data = page_data(page)
    nets = {net["title"]: net for net in data["nets"]}
    program = Program(read_bmodel(tmp_path / "m.bmodel"))
    dma = nets["block_0 .. block_2 (3 nets)"]["cores"][0]["dma"]
    assert len(dma["text"]) == len(program.stage("block_0").cores[0].dma)
    assert len(dma["start"][0]) == len(dma["end"][1]) == len(dma["kind"]["of"]) == len(dma["wait"])
    assert dma["kind"]["names"][dma["kind"]["of"][-1]] == "dma_sys.end"
    assert dma["end"][1][-1] == nets["block_0 .. block_2 (3 nets)"]["figures"]["cycles_cautious"]
    assert data["model"]["layers"] == 3


def test_the_page_needs_nothing_else(tool, tmp_path):
    page = tmp_path / "page.html"
    tool(add_model(), "--html", page)
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?\w|https?://|@import""", page.read_text())


def test_pieces_of_memory_name_their_writer_and_last_reader(tool, tmp_path):
    page = tmp_path / "page.html"
    tool(add_model(), "--html", page)
    core = page_data(page)["nets"][0]["cores"][0]
    start, end, writer, reader = core["memory"]["pieces"][0]
    assert (start, end) == (0, 128)  # 48 items of bf16 in whole groups
    assert (writer, reader) == (2 * 0 + 1, 2 * 0)  # the first load, the first addition
    assert core["memory"]["peak"] == 4 * 128  # a, b and their sum, and the sum before, not stored yet


def test_modules_come_from_the_dumps(tool, tmp_path):
    tool(add_model(), "--html", tmp_path / "without.html")
    core = page_data(tmp_path / "without.html")["nets"][0]["cores"][0]
    lines = ['"func.func"() <{sym_name = "test"}> ({']
    for engine, op in (("tiu", "ar"), ("dma", "dma")):
        for number, wait in enumerate(core[engine]["wait"][:-1], 1):
            attributes = f"chip.id = {number} : i64" + (f", chip.wait = {wait} : i64" if wait else "")
            lines.append(f'  "chip.{op}"() {{{attributes}}} : () -> () loc("model.{engine}")')
    lines.append('}) {bm.net = #bm.net<name = "add">} : () -> ()')
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "add.01.insert-waits.mlir").write_text("\n".join(lines))
    tool(add_model(), "--html", tmp_path / "with.html", "--ir", tmp_path / "ir")
    named = page_data(tmp_path / "with.html")["nets"][0]["cores"][0]
    assert core["tiu"]["module"] is None
    assert named["tiu"]["module"] == {"names": ["model.tiu"], "of": [0] * 4}
    assert named["dma"]["module"] == {"names": ["model.dma"], "of": [0] * 12}


def test_a_folder_without_dumps_is_an_error(tool, tmp_path):
    code, _, errors = tool(add_model(), "--html", tmp_path / "page.html", "--ir", tmp_path)
    assert code == 2
    assert "--dump-ir" in errors


def test_the_page_has_both_queues_and_the_memory_of_each_core(tool, tmp_path):
    page = tmp_path / "page.html"
    tool(sum_model(), "--html", page)
    (net,) = page_data(page)["nets"]
    assert [(len(core["tiu"]["text"]), len(core["dma"]["text"])) for core in net["cores"]] == [(3, 12)] * 2
    assert [core["dma"]["text"][0] for core in net["cores"]] == ["message 30 of 2"] * 2
    assert all(core["memory"]["peak"] for core in net["cores"])
    ends = [max(core[engine]["end"][1]) for core in net["cores"] for engine in ("tiu", "dma")]
    assert max(ends) == net["figures"]["cycles_cautious"]
