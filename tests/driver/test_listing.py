"""What --list prints is what the code has."""

from __future__ import annotations

import pytest

from compiler.ir.define import OPS
from compiler.target.chips import CHIPS
from dialects import llm
from driver.cli import convert_main, convert_parser
from driver.listing import WIDTH, listing, summary
from driver.options import MODES
from frontend.config import TESTED_TYPES
from frontend.sources.settings import METHODS
from passes.llm_to_tensor.context import lowers


@pytest.fixture(scope="module")
def text() -> str:
    return listing(convert_parser())


def section(text: str, title: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(title))


def test_each_section_names_all_that_there_is(text):
    for title, names in (
        ("modes", MODES),
        ("chips", CHIPS),
        ("checkpoints", [*METHODS, "safetensors", "Q4_1", "Q8_0", "bfloat16", "phi3"]),
        ("model types", [*TESTED_TYPES, "gemma3_text", "olmo2"]),
        ("flags", [flag for action in convert_parser()._actions for flag in action.option_strings if flag[:2] == "--"]),
    ):
        words = section(text, title).replace(",", " ").split()
        assert [name for name in names if name not in words] == [], title
    assert max(map(len, text.splitlines())) <= WIDTH


def test_ops_are_told_apart_by_whether_they_have_a_lowering(text):
    lines = section(text, "ops").splitlines()
    listed = {line.split()[0] for line in lines if line.startswith("  llm.")}
    inside = section(text, "ops").partition("only inside those")[2].replace(",", " ").split()
    assert listed | set(inside) == {name for name in OPS if name.startswith("llm.")}
    assert "llm.rms_norm" in listed
    assert "llm.matmul" in inside
    assert lowers.knows(llm.RmsNormOp)
    assert not lowers.knows(llm.MatmulOp)


def test_an_op_is_told_by_its_first_sentence():
    assert summary(llm.NegOp) == "y = -x."


def test_the_flag_prints_and_ends(capsys, monkeypatch):
    monkeypatch.setattr("driver.listing.causal_types", list)
    with pytest.raises(SystemExit, match="0"):
        convert_main(["--list"])
    assert capsys.readouterr().out.startswith("modes\n  -q ")
