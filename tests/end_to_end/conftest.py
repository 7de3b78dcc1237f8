"""Compiled tiny models, one a session for each set of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driver.options import ConvertOptions
from tests.end_to_end.tiny import Tiny


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tiny]:
    """Compile a family in a mode; `checkpoint` and `options` change what is compiled, and how."""
    made: dict[str, Tiny] = {}

    def make(
        family: str, mode: str, checkpoint: dict[str, Any] | None = None, options: dict[str, Any] | None = None
    ) -> Tiny:
        key = repr((family, mode, checkpoint, options))
        if key not in made:
            folder = tiny_checkpoint(family, **(checkpoint or {}))
            out = tmp_path_factory.mktemp("compiled")
            settings = {"seq_length": 64, "quantize": mode, "out_dir": out / "out"} | (options or {})
            made[key] = Tiny(ConvertOptions(folder, **settings))
        return made[key]

    return make
