"""What is printed for a report: the program, Python, the system, and every library that setup.cfg names."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compiler import versions
from compiler.versions import LIBRARIES, library, sources_digest

ROOT = Path(__file__).parents[2]


def test_every_library_that_running_needs_is_told():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    text = "\n".join((setup["options"]["install_requires"], extras["torch"], extras["images"]))
    named = {re.match(r"\w+", line)[0] for line in text.split("\n") if line.strip()}
    assert named == set(LIBRARIES)


@pytest.mark.parametrize("name", ["llm_convert.py", "llm_opt.py", "bmodel_tool.py"])
@pytest.mark.parametrize("order", [("--version", "-v"), ("-v", "--version")])
def test_a_command_prints_them(name, order):
    command = [sys.executable, ROOT / name, *order]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    assert rows["bmllm"].startswith(f"{versions.__version__}")
    assert rows["numpy"] == library("numpy")
    assert [*rows] == ["bmllm", "python", "system", *LIBRARIES]


def test_a_library_that_is_not_there_is_said_to_be_missing():
    assert library("no-such-library-of-ours") == "not installed"


def test_the_digest_is_of_all_sources(monkeypatch, tmp_path):
    (tmp_path / "passes").mkdir()
    source = tmp_path / "passes" / "a.py"
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    found = set()
    for text, name in (("x = 1", "a.py"), ("x = 2", "a.py"), ("x = 2", "b.py")):
        source = source.rename(source.with_name(name)) if source.exists() else source
        source.write_text(text)
        sources_digest.cache_clear()
        found.add(sources_digest())
    sources_digest.cache_clear()
    assert len(found) == 3
