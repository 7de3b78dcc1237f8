"""The garbage collector is out of the way while a program is compiled, and at the end of a command."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from compiler.garbage import uncollected
from driver import cli, convert

ROOT = Path(__file__).parents[2]

AT_EXIT = """
from compiler.command import run_command

class Circle:
    def __init__(self):
        self.self = self
    def __del__(self):
        print("looked at")

run_command(Circle)
print("done")
"""


def test_the_collector_is_back_afterwards_if_it_was_there_before():
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_model_is_compiled_without_it(monkeypatch):
    def stop(path):
        assert not gc.isenabled()
        raise ZeroDivisionError

    monkeypatch.setattr(convert, "open_model", stop)
    with pytest.raises(ZeroDivisionError):
        convert.convert(convert.ConvertOptions(Path("nowhere"), 8))
    assert gc.isenabled()


def test_the_compiler_is_imported_without_it(monkeypatch):
    class Watched(ModuleType):
        @property
        def convert(self) -> Callable[[object], None]:
            seen.append(gc.isenabled())
            return lambda options: None

    seen: list[bool] = []
    monkeypatch.setitem(sys.modules, "driver.convert", Watched("driver.convert"))
    cli.convert(["-m", "nowhere", "-s", "8"])
    assert seen == [False]


def test_a_command_ends_without_looking_through_what_it_leaves():
    run = subprocess.run([sys.executable, "-c", AT_EXIT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "done\n"
