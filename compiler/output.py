"""Output that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler.diagnostics import UserError

STAGING = ".partial-"  # followed by the number of the process that writes there


@contextmanager
def staged_output(folder: Path) -> Iterator[Path]:
    """A new folder to write into; when the block ends well, what is in it moves to `folder` by renaming.

    When it does not (an error, Ctrl-C), nothing of it stays, nor of the folders made for it. What has the
    same name in `folder` is replaced; other files there stay.
    """
    made = _make(folder)
    _remove_abandoned(folder)
    staging = folder / f"{STAGING}{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
        for entry in sorted(staging.iterdir(), key=lambda path: (path.suffix == ".bmodel", path.name)):
            _replace(entry, folder / entry.name)  # the bmodel last: once it is there, all is
        made = []
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for path in made:
            path.rmdir()


def require_space(folder: Path, needed: int) -> None:
    """UserError when the disk that `folder` is on, or will be, has fewer free bytes than `needed`."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no space for -o {folder}: needs {needed / 1e9:.2f} GB, its disk has {free / 1e9:.2f} GB free"
        )


def _make(folder: Path) -> list[Path]:
    """Make the folder and its parents; those that are new, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes left behind that were killed."""
    for path in folder.glob(STAGING + "*"):
        number = path.name.removeprefix(STAGING)
        if number.isdigit() and not _runs(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing, only looks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _replace(entry: Path, target: Path) -> None:
    """Rename to the target; where folders are concerned, no rename replaces, so the old one goes first."""
    if target.exists() and (target.is_dir() or entry.is_dir()):
        target.rename(entry.with_name(entry.name + ".replaced"))
    entry.rename(target)
