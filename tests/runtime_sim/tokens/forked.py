"""Processes of tokenizers, forked from one that has imported transformers: for each of them that takes a second."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
from collections.abc import Sequence
from multiprocessing.connection import Connection

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.runtime_sim.tokens.imported"])


class Forked:
    """As much of a `subprocess.Popen` as `runtime_sim.tokens.confined` needs."""

    def __init__(self, module: str, words: Sequence[str], pipe: Connection, environment: dict[str, str]) -> None:
        self._process = FORKING.Process(target=_main, args=(module, words, pipe, environment), daemon=True)
        self._process.start()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


def _main(module: str, words: Sequence[str], pipe: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    for output in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    importlib.import_module(module).main([*words, str(pipe.fileno())])
