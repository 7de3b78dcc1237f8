"""The wheel holds the whole tree: setup.cfg lists packages, for setuptools cannot find mapped ones."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("compiler", "dialects", "frontend", "passes", "runtime_sim", "driver")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def listed(text: str) -> list[str]:
    return [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]


def test_every_folder_with_code_is_a_listed_package(setup):
    folders = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    found = {"bmllm." + ".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert listed(setup["options"]["packages"]) == sorted(found | {"bmllm"})


def test_data_files_ship(setup):
    data = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
    data = {path for path in data if path.is_file() and path.suffix not in (".py", ".pyc")}
    shipped = {
        path
        for package, patterns in setup["options.package_data"].items()
        for pattern in listed(patterns)
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    assert data == shipped


def test_commands_are_the_root_scripts(setup):
    lines = listed(setup["options.entry_points"]["console_scripts"])
    commands = dict(line.split(" = ") for line in lines)
    scripts = {path.name for path in ROOT.glob("*.py")}
    assert scripts <= set(commands) == {"llm_convert.py", "llm_opt.py", "bmodel_tool.py"}
    assert all(target == f"bmllm.{name[:-3]}:main" for name, target in commands.items())


def test_transformers_is_pinned_to_the_minor_version_that_is_tested(setup):
    """Its newest release for each Python: what the front end traces changes from one to the next."""
    pins = [line for line in listed(setup["options"]["install_requires"]) if "transformers" in line]
    newer = "5.23" if sys.version_info >= (3, 11) else "5.20"
    assert pins == [
        "transformers == 5.23.*; python_version >= '3.11'",
        "transformers == 5.20.*; python_version < '3.11'",
    ]
    assert version("transformers").startswith(newer + ".")


def test_no_install_brings_torch_unasked(setup):
    """PyPI's torch for Linux has gigabytes of CUDA; README.md says how to get another."""
    assert not [line for line in listed(setup["options"]["install_requires"]) if "torch" in line]
    assert listed(setup["options.extras_require"]["torch"]) == ["torch >= 2.6"]
