"""bmodel_tool.py timing: text and JSON."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bmodel_tool import main
from compiler.bmodel import read_bmodel, write_bmodel
from compiler.bmodel.flatbuffer import decode, encode
from runtime_sim.launch.loader import Program
from runtime_sim.tool.measured import measure_file
from runtime_sim.tool.timing import text_of
from tests.runtime_sim.check.changes import with_net
from tests.runtime_sim.check.cores import sum_model
from tests.runtime_sim.check.programs import add_model, toy_model
from tests.runtime_sim.tool.page import page_data

VENDOR = Path(__file__).parents[4] / "shared" / "data" / "vendor_programs"
KEYS = {"net", "cycles", "cycles_cautious", "ddr_read", "ddr_write", "dma_commands", "tiu_busy", "gdma_busy",
        "macs", "roofline"}  # fmt: skip


@pytest.fixture
def tool(tool):
    """Write a model, ask for its timing; exit code, output and errors."""
    return lambda model, *arguments: tool(model, "timing", *arguments)


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


def test_each_core_is_told_of(tool):
    _, out, _ = tool(sum_model())
    cores = re.findall(r"  core (\d): ([\d,]+) cycles, TIU busy for \d+, DMA for [\d,]+; cautious ([\d,]+)", out)
    assert [core for core, *_ in cores] == ["0", "1"]
    assert re.search(rf"sum +plain +{cores[0][1]} ", out)
    assert re.search(rf" +cautious +{cores[0][2]} ", out)
    assert "of the DDR that all cores share" in out
    assert "core 0:" not in tool(add_model())[1]


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


def test_decode_is_told_for_each_stage():
    model = toy_model(layers=1, histories=(12, 6))
    name = "block_cache_0"
    net, (streams,) = model.net(name), model.net("block_0").stages[0].cores
    longer = replace(net.stages[0], cores=[streams])  # another program, so that each has figures of its own
    measured = measure_file(Program(with_net(model, name, lambda net: replace(net, stages=[longer, net.stages[1]]))))
    assert [group.title for group in measured.groups if name in group.title or "block_0" in group.title] == [
        "block_0 .. block_cache_0 (2 nets)",
        "block_cache_0.1",
    ]
    figures = measured.as_dict()["model"]
    by_history = figures["tokens_per_second_by_history"]
    assert [*by_history] == [12, 6]
    assert by_history[12] == figures["tokens_per_second"]
    nets = measured.model.nets
    cycles = [nets[each].cycles for each in ("embedding_cache", "block_cache_0.1", "lm_head")]
    assert by_history[6]["cycles"] == pytest.approx(1e9 / sum(cycles))
    text = "\n".join(text_of(measure_file(Program(model))))
    assert "decode, up to 12 tokens " in text
    assert "decode, up to 6 tokens " in text
    assert "decode  " in "\n".join(text_of(measure_file(Program(toy_model()))))


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
