"""The page of dumps: passes in order, what each changed, texts that are unpacked when looked at."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace

import pytest

from compiler.diagnostics import CompileError
from driver import passes_page as module
from driver.convert import convert
from driver.options import ConvertOptions
from driver.passes_page import PAGE, TEMPLATE, changes, page_data, passes_page
from tests.runtime_sim.tool.page import page_data as data_in

BEFORE = '%0 = "llm.silu"(%x) loc("a")\n%1 = "llm.mul"(%0, %y) loc("b")\n%2 = "llm.add"(%1, %1)'
AFTER = '%0 = "llm.swiglu"(%x, %y) loc("a", "b")\n%1 = "llm.add"(%0, %0)'


@pytest.fixture
def dumps(tmp_path):
    """A folder of two nets, in another order than by name."""
    for name, text in (("block_0.10.last", AFTER), ("block_0.02.fuse", AFTER), ("block_0.00.input", BEFORE),
                       ("a.00.input", BEFORE)):  # fmt: skip
        (tmp_path / f"{name}.mlir").write_text(f"// passes-left: {name}\n{text}\n")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def text_of(entry) -> str:
    return zlib.decompress(base64.b64decode(entry["text"])).decode()


def test_nets_have_their_passes_in_order(dumps):
    nets = {net["name"]: net["passes"] for net in page_data(dumps)}
    assert {name: [each["name"] for each in passes] for name, passes in nets.items()} == {
        "a": ["input"], "block_0": ["input", "fuse", "last"],
    }  # fmt: skip
    assert [text_of(each) for each in nets["block_0"]] == [BEFORE, AFTER, AFTER]
    assert nets["block_0"][1]["file"] == "block_0.02.fuse.mlir"


def test_what_changed_does_not_count_numbers_of_values(dumps):
    _, fuse, last = page_data(dumps)[1]["passes"]
    assert fuse["changes"] == [(0, 2, 0, 1)]  # the addition is the same
    assert last["changes"] == []
    assert page_data(dumps)[1]["passes"][0]["changes"] is None


def test_long_dumps_are_shown_in_part_and_not_compared(dumps, monkeypatch):
    monkeypatch.setattr(module, "SHOWN_LINES", 2)
    monkeypatch.setattr(module, "COMPARED_LINES", 1)
    first, fuse, last = page_data(dumps)[1]["passes"]
    assert text_of(first) == "\n".join(BEFORE.split("\n")[:2])
    assert (first["lines"], first["left"], fuse["left"]) == (3, 1, 0)
    assert (fuse["changes"], last["changes"]) == (None, [])


def test_changes_lead_from_one_text_to_the_other():
    before, after = list("abcdefgh"), list("abxxdegzh")
    made = list(before)
    for first, last, start, end in reversed(changes(before, after)):
        made[first:last] = after[start:end]
    assert made == after


def test_a_pass_that_fails_leaves_the_page_of_those_before(dumps):
    with pytest.raises(CompileError, match="told"), passes_page(dumps):
        raise CompileError("told")
    assert [net["name"] for net in data_in(dumps / PAGE)] == ["a", "block_0"]


def test_without_dumps_nothing_is_written(tmp_path):
    for folder in (None, tmp_path / "none"):
        with passes_page(folder):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_page_needs_nothing_else(dumps):
    with passes_page(dumps):
        pass
    text = (dumps / PAGE).read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*['"]?\w|https?://|@import|/\*[A-Z]+\*/""", text)


def test_a_compile_with_dumps_has_the_page(tiny_checkpoint, tmp_path):
    given = ConvertOptions(tiny_checkpoint("llama", layers=1), 64, "w4bf16", dump_ir=tmp_path / "ir")
    convert(replace(given, stop_after="fuse-swiglu"))
    nets = {net["name"]: [each["name"] for each in net["passes"]] for net in data_in(tmp_path / "ir" / PAGE)}
    assert set(nets) == {"embedding", "lm_head", "block_0"}
    assert nets["block_0"][0] == "input"
    assert nets["block_0"][-1] == "fuse-swiglu"


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run its script")
def test_its_script_aligns_lines_and_finds_modules(tmp_path):
    """The functions of the page that touch no document."""
    script = re.search(r"<script>\n(.*)</script>", TEMPLATE.read_text(), re.DOTALL)[1]
    names = ("locations", "isOf", "aligned")
    parts = [re.search(rf"^(?:const {name} = .*?;$|function {name}\(.*?^\}}$)", script, re.M | re.S)[0] for name in names]
    before, after = BEFORE.split("\n"), AFTER.split("\n")
    told = f"""
        const before = {json.dumps(before)}, after = {json.dumps(after)};
        const rows = aligned(before, after, {json.dumps(changes(before, after))});
        console.log(JSON.stringify([rows, before.map(l => isOf(l, "a")), after.map(l => isOf(l, "b")), locations('x loc("a.b")')]))
    """
    run = subprocess.run(["node", "-e", "\n".join(parts) + told], capture_output=True, text=True, check=True)
    rows, of_a, of_b, names_in = json.loads(run.stdout)
    assert rows == [[before[0], after[0], "both"], [before[1], None, "both"], [before[2], after[1], "same"]]
    assert (of_a, of_b, names_in) == ([True, False, False], [True, False], ["a.b"])
