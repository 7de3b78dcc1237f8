"""A folder of results by what they were made of, which several runs may share.

An entry is a file that is called by its key and begins with the sha256 of the rest. It appears under its name
when it is whole; what is damaged is removed and made again. The folder keeps what was used last.
"""

from __future__ import annotations

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


@dataclass
class Cache:
    """Entries in `folder`, of `limit` bytes in all; more only while they are written.

    Reading and writing never fail: what cannot be read is not there, and after the first that cannot be
    written (a full disk) nothing more is. UserError at once when the folder cannot be made.
    """

    folder: Path
    limit: int
    hits: int = 0
    misses: int = 0
    _size: int = 0
    _writes: bool = True
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
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
                size = write_entry(partial, parts)
                if size <= self.limit:
                    os.replace(partial, path)
                    self._grow(size)
        except OSError as error:
            self._writes = False
            log.warning("--cache %s: %s; nothing more is kept there", self.folder, reason(error))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)

    def _grow(self, size: int) -> None:
        with self._lock:
            self._size += size
            if self._size > self.limit:
                self._shrink()

    def _shrink(self) -> None:
        """Remove what was used longest ago. Another run may do so at the same time."""
        found = sorted(self._entries())
        self._size = sum(size for _, size, _ in found)
        for used, size, path in found:
            abandoned = path.name.endswith(PARTIAL) and time.time() - used > ABANDONED
            if abandoned or (self._size > KEPT * self.limit and not path.name.endswith(PARTIAL)):
                self._remove(path)
                self._size -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each was last used, its size, and its file."""
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # another run has just removed it
                state = path.stat()
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
