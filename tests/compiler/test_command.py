"""What the three commands share: version, examples in their help, and what they say of missing libraries."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

import bmodel_tool
from compiler import __version__
from compiler.command import not_installed
from compiler.target.chips import CHIPS
from driver.cli import convert_parser

ROOT = Path(__file__).parents[2]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in bmodel_tool.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("name", ["llm_convert.py", "llm_opt.py", "bmodel_tool.py"])
def test_version(name):
    run = subprocess.run([sys.executable, ROOT / name, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"bmllm {__version__}\n"


@pytest.mark.parametrize("name", sorted(subcommands()))
def test_the_example_of_each_subcommand_can_be_parsed(name):
    help_text = subcommands()[name].format_help()
    example = help_text.partition("example:\n  bmodel_tool.py ")[2].strip()
    arguments = example.replace("'What is the capital of France?'", "What").split()
    assert bmodel_tool.parser().parse_args(arguments).command == name


def test_the_example_of_llm_convert_can_be_parsed():
    example = convert_parser().format_help().partition("example:\n  llm_convert.py ")[2].split()
    assert convert_parser().parse_args(example).chip in CHIPS


def test_help_lists_every_chip_by_all_its_names():
    text = convert_parser().format_help()
    assert [name for spec in CHIPS.values() for name in (spec.name, *spec.aliases) if name not in text] == []


def test_a_missing_library_is_named_with_what_installs_it():
    missing = not_installed(ModuleNotFoundError("No module named 'torch'", name="torch"), "compiling")
    assert str(missing).startswith("compiling needs torch (No module named 'torch'): pip install torch --index-url")
    other = not_installed(ModuleNotFoundError("No module named 'x'", name="transformers.y"), "compiling")
    assert str(other).endswith("pip install transformers")


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_a_module_of_ours_that_is_missing_is_our_mistake(folder):
    error = ModuleNotFoundError(f"No module named '{folder}.x'", name=f"{folder}.x")
    assert not_installed(error, "compiling") is error
