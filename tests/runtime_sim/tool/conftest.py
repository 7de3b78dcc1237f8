"""Fixtures of the tests of commands."""

from argparse import Namespace

import pytest

from bmodel_tool import main
from compiler.bmodel import write_bmodel
from runtime_sim.launch.session import Session
from runtime_sim.tool import verify
from tests.runtime_sim.launch.fake_runtime import FakeRuntime


@pytest.fixture
def tool(tmp_path, capsys):
    """Write a model, run a command on it; exit code, output and errors."""

    def call(model, command, *arguments):
        path = tmp_path / "m.bmodel"
        write_bmodel(path, model)
        code = main([command, str(path), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tiny_checkpoint):
    return tiny_checkpoint("qwen3")


@pytest.fixture
def runtime(folder):
    return FakeRuntime(folder)


@pytest.fixture
def report(folder, runtime, monkeypatch, capsys):
    """Run `verify`; its exit code and what it printed."""

    def call(runtime=runtime, **changes):
        arguments = {"file": folder / "m.bmodel", "reference": folder, "prompt": None, "min_cosine": 0.99}
        arguments |= {"ir": None, "bisect": None, "image": None}
        monkeypatch.setattr(verify, "open_session", lambda *_: Session(runtime))
        code = verify.run(Namespace(exact=False, order=None, **(arguments | changes)))
        return code, capsys.readouterr().out

    return call
