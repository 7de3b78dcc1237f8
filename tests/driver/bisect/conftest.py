"""Fixtures of these tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.driver.bisect.broken import SIZES, Compiled


@pytest.fixture(scope="session")
def compiled(tiny_checkpoint, tmp_path_factory):
    return Compiled(tiny_checkpoint("qwen3", layers=3, **SIZES), tmp_path_factory.mktemp("bisect"))


@pytest.fixture
def dumps(compiled, tmp_path):
    return Path(shutil.copytree(compiled.dumps, tmp_path / "ir"))
