"""A folder of results by what they were made of, which several runs may share.

An entry is a file that is called by its key and begins with the sha256 of the rest. It appears under its name
when it is whole; what is damaged is removed and made again. The folder keeps what was used last, and of a run
that makes more than there is room for, what came first: what a repeated one begins with is then there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from compiler.diagnostics import UserError, log
from compiler.files import reason
from compiler.interrupt import cleaned_up

HASH_BYTES = 32
KEPT = 0.9  # of the limit, when entries are removed for it
PARTIAL = ".partial"
ABANDONED = 3600.0  # seconds after which what a killed run began to write is removed
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Cache:
    """Entries in `folder`, of `limit` bytes in all; more only while they are written.

    Reading and writing never fail: what cannot be read is not there, and what a full disk has no room for is
    left out; nothing more is written where it cannot be for other reasons. UserError at once when the folder
    cannot be made.
    """

    folder: Path
    limit: int
    hits: int = 0
    misses: int = 0
    _size: int = 0
    _used: set[Path] = field(default_factory=set)  # by this run, which makes room with what others left
    _told: bool = False
    _writes: bool = True
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            self._size = sum(size for _, size, _ in self._entries())
        except OSError as error:
            raise UserError(f"--cache {self.folder}: {reason(error)}") from None

    def get(self, key: str) -> memoryview | None:
        """What was put there under this key; None where nothing was, or it is no longer the same."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        found = memoryview(data)[HASH_BYTES:]
        if len(data) < HASH_BYTES or hashlib.sha256(found).digest() != data[:HASH_BYTES]:
            if data:
                log.warning("--cache %s: %s is damaged: it is made again", self.folder, path.name)
                self._remove(path)
            self._count("misses")
            return None
        with suppress(OSError):
            os.utime(path)
        self._used.add(path)
        self._count("hits")
        return found

    def put(self, key: str, parts: Iterable[bytes | memoryview]) -> None:
        """Keep an entry, if there is room for it."""
        if not self._writes:
            return
        path = self._path(key)
        partial = path.with_name(f"{secrets.token_hex(8)}{PARTIAL}")
        try:
            with cleaned_up(lambda: partial.unlink(missing_ok=True)):
                path.parent.mkdir(exist_ok=True)
                self._admit(partial, path, write_entry(partial, parts))
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Tell the first time."""
        full = error.errno in FULL
        left = "what does not fit is left out" if full else "nothing more is kept there"
        with self._lock:
            told, self._told = self._told, True
            self._writes &= full
        if not told:
            log.warning("--cache %s: %s; %s", self.folder, reason(error), left)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def _admit(self, partial: Path, path: Path, size: int) -> None:
        """Give what was written its name, if there is room for it."""
        with self._lock:
            if self._size + size > self.limit:
                self._shrink(size)
            if self._size + size <= self.limit:
                os.replace(partial, path)
                self._used.add(path)
                self._size += size

    def _shrink(self, size: int) -> None:
        """Remove what was used longest ago, if that makes room for so many bytes more. Another run may do so
        at the same time.
        """
        found = sorted(self._entries())
        self._size = sum(each for _, each, _ in found)
        if size + sum(each for _, each, path in found if path in self._used) > self.limit:
            return
        for _, each, path in found:
            if self._size + size > KEPT * self.limit and path not in self._used:
                self._remove(path)
                self._size -= each

    def _clear(self) -> None:
        """Remove what killed runs began to write."""
        for path in self.folder.glob(f"??/*{PARTIAL}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each was last used, its size, and its file."""
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # another run has just removed it
                state = path.stat()
                if path.suffix != PARTIAL:
                    yield state.st_mtime, state.st_size, path

    def _remove(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink()


def write_entry(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """A new file with the hash of the parts and the parts; its size."""
    digest, size = hashlib.sha256(), HASH_BYTES
    with open(path, "xb") as file:
        file.write(bytes(HASH_BYTES))
        for part in parts:
            digest.update(part)
            file.write(part)
            size += len(part)
        file.seek(0)
        file.write(digest.digest())
    return size


def key_of(*parts: str | bytes) -> str:
    """A name for what is made of these."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
