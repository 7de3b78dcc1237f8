"""Files that come from others: opened only when they are what they should be, and JSON within limits.

A checkpoint is a folder that somebody made. What is read of it are regular files that lie in it; a link may
lead to another file of the same checkpoint and nowhere else, and opening never waits for a pipe or a device.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from compiler.diagnostics import UserError

JSON_BYTES = 64 << 20  # the largest tokenizer.json seen has 33 MB
JSON_DEPTH = 64  # config files nest 5 deep, tokenizers 10
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no more can be written


def checkpoint_root(folder: Path) -> Path:
    """The folder that links in `folder` may lead into: itself, or the repository of a hub's cache.

    Such a cache keeps each file once in `REPOSITORY/blobs`, and in `REPOSITORY/snapshots/HASH` links to them.
    """
    real = Path(os.path.realpath(folder))
    is_snapshot = real.parent.name == "snapshots" and (real.parent.parent / "blobs").is_dir()
    return real.parent.parent if is_snapshot else real


def open_file(path: Path, root: Path | None = None) -> IO[bytes]:
    """A regular file, open for reading; UserError when it is none, or lies outside of `root`.

    `root` is what `checkpoint_root` gave for the folder of the file; without it links may lead anywhere.
    """
    try:
        if root is not None and not Path(os.path.realpath(path)).is_relative_to(root):
            raise UserError(
                f"{path} is a link out of the checkpoint, which is not followed: put the file there itself"
            )
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UserError(f"cannot read {path}: it is not a regular file")
    return os.fdopen(number, "rb")


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that is there; OSError when that cannot be known."""
    for path in (folder.absolute(), *folder.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def reason(error: OSError | ValueError) -> str:
    """What the system says of an error, without the number and the name of the file."""
    return getattr(error, "strerror", None) or str(error)


def read_bytes(path: Path, limit: int, root: Path | None = None) -> bytes:
    """The whole content of a regular file of at most `limit` bytes."""
    with open_file(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UserError(f"{path} has {size} bytes, expected at most {limit}")
        try:
            return file.read(limit)
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason(error)}") from None


def read_text(path: Path, limit: int = JSON_BYTES, root: Path | None = None) -> str:
    """A regular file of UTF-8, without a byte order mark."""
    try:
        return read_bytes(path, limit, root).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named; a pipe that nobody reads is refused, not waited for."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        os.set_blocking(number, True)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from None


def read_json_object(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The object in a JSON file; UserError names the file and, in bad JSON, the place."""
    return parse_json_object(read_text(path, root=root), str(path))


def parse_json_object(text: str | bytes, source: str) -> dict[str, Any]:
    """The object that a text in JSON is; each key must stand there once. `source` is its name in messages."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{source}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{source}: nested deeper than {JSON_DEPTH} levels") from None
    except ValueError as error:  # a key twice, bad UTF-8, a number of thousands of digits
        raise UserError(f"{source}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise UserError(f"{source}: expected a JSON object, found {type(value).__name__}")
    _check_depth(value, source)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands there twice")
    return found


def _check_depth(value: Any, source: str) -> None:
    level = [value]
    for _ in range(JSON_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise UserError(f"{source}: nested deeper than {JSON_DEPTH} levels")
