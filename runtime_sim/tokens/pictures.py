"""Files of pictures to what a tower takes, as a model's `config/` folder says.

transformers does it, in a process of its own (`runtime_sim.tokens.processor`), within limits: a file of a
picture may be damaged, or unpack to more than there is memory for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError
from compiler.files import checkpoint_root, open_file, read_json_object
from runtime_sim.arrays import Array
from runtime_sim.tokens.confined import Limits
from runtime_sim.tokens.library import LibraryPart
from runtime_sim.tokens.processor import SETTINGS, read_pixels

REQUEST = Limits(seconds=60, megabytes=4096)
OF_PROCESSOR = (SETTINGS, "processor_config.json")  # any one of them
PACKAGES = {"transformers": "transformers", "PIL": "pillow"}  # that it needs, by what is imported


@dataclass(frozen=True)
class Read:
    """What a processor made of a file."""

    pixels: Array  # float32: [patches, values], or [tiles, channels, rows, columns]
    grid: tuple[int, int]  # rows and columns of patches; zeros where there are tiles
    size: tuple[int, int]  # rows and columns of pixels that the file has


class Pictures:
    """The image processor of a model. Loading goes on until first used."""

    def __init__(self, config: Path) -> None:
        name, link = f"the image processor of {config}", partial(_link_settings, config)
        self._part = LibraryPart(name, "processor", link, REQUEST, _advice)

    def read(self, path: Path, most: int) -> Read:
        """A picture of at most so many patches, or tiles; UserError for a file that is none."""
        open_file(path).close()
        failure = f"{path} cannot be read as a picture"
        made: dict[str, Any] = self._part.ask(failure, "read", os.path.abspath(path), most)
        (rows, columns), (height, width) = made["grid"], made["size"]
        return Read(read_pixels(self._part.folder), (rows, columns), (height, width))


def _advice(problem: str) -> str:
    """Why loading failed, and what to do where it is known."""
    for module, package in PACKAGES.items():
        if f"No module named '{module}'" in problem:
            return f"{package} is not installed (pip install {package})"
    return problem


def _link_settings(config: Path, target: Path) -> None:
    """Links in an empty folder to the files that say how a picture is cut."""
    found = [name for name in OF_PROCESSOR if os.path.lexists(config / name)]
    if not found:
        raise UserError(
            f"{config} has no {SETTINGS}, which says how a picture is cut: put the model's there, or give "
            "--config its folder"
        )
    for name in (*found, "config.json"):
        read_json_object(config / name, checkpoint_root(config))
        (target / name).symlink_to((config / name).resolve())
