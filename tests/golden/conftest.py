"""What is kept in files: long IR, encodings, cycles. Tests compare with it, `make golden` rewrites it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
REWRITE = "--rewrite-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(REWRITE, action="store_true", help="write what tests compare with, instead of comparing")


def rewrites(config: pytest.Config) -> bool:
    return bool(config.getoption(REWRITE, default=False))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name in this folder; with the option, write the file."""

    def check(name: str, text: str) -> None:
        path = FOLDER / name
        if rewrites(request.config):
            path.write_text(text)
            return
        assert path.exists(), f"no {path}; `make golden` writes it"
        assert text == path.read_text(), f"{name} has changed; if it should, run `make golden` and read the diff"

    return check
