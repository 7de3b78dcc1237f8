"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; torch's threads wait in loops
import runtime_sim  # noqa: F401  (before numpy: it keeps products to one thread)
from runtime_sim.tokens import confined
from tests.checkpoints import make_checkpoint
from tests.runtime_sim.tokens.forked import Forked

hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine is not a mistake
hypothesis.settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look at it again, nor processes that fork copy it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_checkpoint` without its folder: one checkpoint a session per set of options, to be read only."""
    made: dict[str, Path] = {}

    def make(family: str, **options: Any) -> Path:
        key = repr((family, sorted(options.items())))
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / family, family, **options)
        return made[key]

    return make


@pytest.fixture
def forked_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers come at once, instead of after an import of transformers for each."""
    monkeypatch.setattr(confined, "start", Forked)
