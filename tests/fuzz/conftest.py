"""A process that forks for each case: pytest's own has threads, and has not imported what a case needs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-cases", type=int, default=40, help="cases of each group")
    parser.addoption("--fuzz-seed", type=int, default=0, help="seed of the cases")


@pytest.fixture(scope="session")
def forking() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process
