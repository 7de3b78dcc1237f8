"""Fixtures of these tests."""

import pytest

from compiler.bmodel import BytesBlob, write_bmodel
from tests.compiler.bmodel.models import model, stage


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.bmodel"
    write_bmodel(path, model(stage(BytesBlob(b"w" * 5000)), stage(BytesBlob(b"v"))))
    return path.read_bytes()
