"""bmodel_tool.py timing: text, JSON and the page."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bmodel_tool import main
from compiler.bmodel import BModel, read_bmodel, write_bmodel
from compiler.bmodel.flatbuffer import decode, encode
from runtime_sim.launch.loader import Program
from runtime_sim.tool.timing import measure_file
from tests.runtime_sim.check.programs import add_model, toy_model

VENDOR = Path(__file__).parents[4] / "shared" / "data" / "vendor_programs"
KEYS = {"net", "cycles", "cycles_cautious", "ddr_read", "ddr_write", "dma_commands", "tiu_busy", "gdma_busy",
        "macs", "roofline"}  # fmt: skip


@pytest.fixture
def tool(tmp_path, capsys):
    """Write a model, ask for its timing; exit code, output and errors."""

    def call(model, *arguments):
        write_bmodel(tmp_path / "m.bmodel", model)
        code = main(["timing", str(tmp_path / "m.bmodel"), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_each_net_in_both_estimates(tool):
    code, out, _ = tool(add_model())
    lines = [line.split() for line in out.splitlines()]
    plain = next(line for line in lines if line[:2] == ["add", "plain"])
    cautious = lines[lines.index(plain) + 1]
    assert code == 0
    assert cautious[0] == "cautious"
    assert int(cautious[1].replace(",", "")) > int(plain[2].replace(",", ""))
    assert "49,152 bytes of DDR read, 24,576 written, DMA commands: 12" in out


def test_the_whole_model(tool):
    _, out, _ = tool(toy_model(layers=2))
    assert re.search(r"2 layers +plain +cautious +roofline", out)
    assert re.search(r"prefill of 8 tokens +[\d.]+ ms +[\d.]+ ms +[\d.]+ ms", out)
    assert re.search(r"decode +[\d.]+ tokens/s", out)
    assert "block_0 .. block_1 (2 nets)" in out


def test_one_net_by_instruction(tool):
    _, out, _ = tool(add_model(), "--net", "add")
    assert re.search(r"TIU +ar\.add +4 +\d+ +\d+", out)
    assert re.search(r"DMA +dma_tensor\.copy +12", out)


def test_an_unknown_net_is_an_error(tool):
    code, _, errors = tool(add_model(), "--net", "sub")
    assert code == 2
    assert "there is no net 'sub'" in errors


def test_json_has_every_net(tool):
    _, out, _ = tool(toy_model(layers=3), "--json")
    record = json.loads(out)
    assert len(record["nets"]) == 9
    assert all(set(net) >= KEYS for net in record["nets"])
    assert record["model"]["layers"] == 3
    by_name = {net["net"]: net for net in record["nets"]}
    total = by_name["embedding"]["cycles"] + 3 * by_name["block_0"]["cycles"] + by_name["lm_head"]["cycles"]
    assert record["model"]["prefill_seconds"]["cycles"] == pytest.approx(total * 1e-9)


def with_other(model: BModel, **stage: Any) -> Program:
    """The model with a second net, whose stage differs in some fields."""
    other = replace(model.nets[0], name="other", stages=[replace(model.nets[0].stages[0], **stage)])
    return Program(replace(model, nets=[*model.nets, other]))


def test_a_net_that_cannot_be_decoded_is_named():
    measured = measure_file(with_other(add_model(), unsupported="a CPU subnet", cores=[]))
    assert [group.title for group in measured.groups] == ["add"]
    assert "a CPU subnet" in measured.incomplete["other"]


def test_the_static_parts_of_a_net_are_measured_one_after_the_other():
    model = add_model()
    streams = model.nets[0].stages[0].cores
    measured = measure_file(with_other(model, unsupported="2 sub-nets", cores=[], parts=[streams, streams]))
    once, twice = (measured.model.nets[name] for name in ("add", "other"))
    assert twice.cycles == 2 * once.cycles
    assert twice.work.ddr_read == 2 * once.work.ddr_read
    assert "2 sub-nets" in measured.incomplete["other"]


def present(value: Any) -> Any:
    """Without the fields that are not there, which decoding gives as None."""
    if isinstance(value, list):
        return [present(item) for item in value]
    if isinstance(value, dict):
        return {name: present(item) for name, item in value.items() if item is not None}
    return value


def test_the_static_parts_are_read_from_the_file(tmp_path):
    write_bmodel(tmp_path / "one.bmodel", add_model())
    data = (tmp_path / "one.bmodel").read_bytes()
    header, size = struct.unpack_from("<II", data, 4)
    record = decode(data[header : header + size])
    (parameter,) = record["net"][0]["parameter"]
    parameter["sub_net"].append({"is_dynamic": 1, "id": 1, "subnet_mode": 0})
    table = encode(present(record)).ljust(size, b"\0")
    (tmp_path / "two.bmodel").write_bytes(data[:32] + bytes(32) + table + data[header + size :])
    measured = measure_file(Program(read_bmodel(tmp_path / "two.bmodel")))
    whole = measure_file(Program(read_bmodel(tmp_path / "one.bmodel")))
    assert measured.model.nets["add"].cycles == whole.model.nets["add"].cycles > 0
    assert "dynamic" in measured.incomplete["add"]


# ---- the page ----


def page_data(path):
    """What the page draws."""
    found = re.search(r"^const DATA = (.*);$", path.read_text(), re.MULTILINE)
    assert "<" not in found[1]
    return json.loads(found[1])


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


def test_dumps_without_a_page_are_refused(tool, tmp_path):
    code, _, errors = tool(add_model(), "--ir", tmp_path)
    assert code == 2
    assert errors == "error: --ir needs --html: the page is what names the modules\n"


@pytest.mark.shared
@pytest.mark.parametrize("chip", ["bm1684x", "bm1688"])
@pytest.mark.parametrize("net", ["block_0", "block_cache_0"])
def test_programs_of_the_vendor(chip, net, tmp_path, capsys):
    file = VENDOR / chip / f"{net}.bmodel"
    if not file.is_file():
        pytest.skip(f"the vendor's programs are not at {file}: NOTHING was measured")
    assert main(["timing", str(file), "--json", "--html", str(tmp_path / "page.html")]) == 0
    (figures,) = json.loads(capsys.readouterr().out)["nets"]
    assert 0 < figures["roofline"] < figures["cycles"] < figures["cycles_cautious"]
    assert len(page_data(tmp_path / "page.html")["nets"][0]["cores"]) == (2 if chip == "bm1688" else 1)
