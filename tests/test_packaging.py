"""setup.cfg lists what the tree holds."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("compiler", "dialects", "passes", "runtime_sim")


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_folder_with_code_is_a_package_of_the_wheel():
    folders = {path.parent for name in SHIPPED for path in (ROOT / name).rglob("*.py")}
    expected = {"bmllm", *("bmllm." + ".".join(path.relative_to(ROOT).parts) for path in folders)}
    assert set(config()["options"]["packages"].split()) == expected


def test_every_file_that_is_no_code_is_shipped_too():
    others = {
        path.relative_to(ROOT)
        for name in SHIPPED
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    data = config()["options.package_data"]
    for path in others:
        package = "bmllm." + ".".join(path.parent.parts)
        assert f"*{path.suffix}" in data.get(package, "").split(), path


def test_every_command_is_installed():
    lines = config()["options.entry_points"]["console_scripts"].split("\n")
    commands = {line.split("=")[0].strip() for line in lines if line}
    assert commands == {path.name for path in ROOT.glob("*.py")} | {"bmodel_tool.py"}
