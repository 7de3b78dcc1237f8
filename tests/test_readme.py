"""What README.md says of flags, models and chips is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from compiler.target.chips import CHIPS
from driver.cli import convert_parser
from driver.options import MODES
from frontend.config import SEEING_TYPES, TESTED_TYPES

README = (Path(__file__).parent.parent / "README.md").read_text()
HIDDEN = {"-h", "--help", "--version", "-v", "--verbose"}  # explain themselves


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def works_today(row: str) -> str:
    """The middle column of a row of the table."""
    return next(line.split("|")[2] for line in section("What it compiles").splitlines() if line.startswith(f"| {row}"))


def code(text: str) -> set[str]:
    return {word for quoted in re.findall(r"`([^`]+)`", text) for word in quoted.split()}


def test_every_flag_is_explained_once():
    rows = [line.split("|")[1] for line in section("Flags of llm_convert.py").splitlines() if line.startswith("| `")]
    listed = [flag for row in rows for quoted in re.findall(r"`([^`]+)`", row) for flag in quoted.split()[:1]]
    known = {flag for action in convert_parser()._actions for flag in action.option_strings} - HIDDEN
    assert sorted(listed) == sorted(known)


def test_the_table_of_what_it_compiles_is_the_code_s():
    assert code(works_today("models")) == set(TESTED_TYPES)
    assert code(works_today("that see")) == set(SEEING_TYPES)
    assert code(works_today("weights")) == set(MODES)
    assert code(works_today("chips")) == set(CHIPS)
