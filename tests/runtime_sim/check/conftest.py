"""Fixtures of the tests of checks."""

from collections.abc import Callable

import pytest

from compiler.bmodel import BModel, read_bmodel, write_bmodel
from runtime_sim.check.contract import check_file
from runtime_sim.launch.loader import Program


@pytest.fixture
def problems(tmp_path) -> Callable[..., list[str]]:
    def check(model: BModel) -> list[str]:
        write_bmodel(tmp_path / "m.bmodel", model)
        return check_file(Program(read_bmodel(tmp_path / "m.bmodel")))

    return check
