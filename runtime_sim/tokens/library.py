"""A part of transformers at work in a process of its own, on some files of a folder and within limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compiler.diagnostics import UserError
from compiler.files import reason
from runtime_sim.tokens.confined import Confined, Limits, Refused

LOADING = Limits(seconds=30, megabytes=2048)  # 262,144 tokens take 3 s and 0.6 GB
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OPENBLAS_NUM_THREADS": "1",
}


class LibraryPart:
    """What a module of this folder serves. Loading begins at once and goes on until first used.

    `link` puts links into an empty folder, the only one that the process reads, so no code beside the linked
    files can be found. `advice` says of a problem of loading what to do about it.
    """

    def __init__(
        self,
        name: str,
        module: str,
        link: Callable[[Path], None],
        request: Limits,
        advice: Callable[[str], str],
    ):
        self.name = name
        self.advice = advice
        try:
            self._links = TemporaryDirectory(prefix="bmllm-")
            self.folder = Path(self._links.name)
            link(self.folder)
            module = f"runtime_sim.tokens.{module}"
            folder = str(self.folder)
            self._process = Confined(module, folder, LOADING, request, HF_HOME=folder, **ENVIRONMENT)
        except OSError as error:
            raise UserError(f"{name} cannot be loaded: {reason(error)}") from None
        self._is_loaded = False

    def load(self) -> None:
        """Wait until it is; UserError if it cannot be."""
        if self._is_loaded:
            return
        try:
            self._process.answer()
        except Refused as error:
            raise UserError(f"{self.name} cannot be loaded: {self.advice(str(error))}") from None
        self._is_loaded = True

    def ask(self, failure: str, name: str, *arguments: Any) -> Any:
        """What a method of the part gives; UserError that begins with `failure` if it refuses."""
        self.load()
        try:
            return self._process.ask(name, *arguments)
        except Refused as error:
            raise UserError(f"{failure}: {error}") from None
