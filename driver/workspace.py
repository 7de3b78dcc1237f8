"""A hidden folder beside an output folder, for one run at a time; and how it takes its place in one step."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from compiler.interrupt import cleaned_up, uninterrupted

NEW = "new"  # what is being written; after the exchange, what it replaced
OLD = "old"  # what is being replaced where folders cannot be exchanged
LOCK = "lock"
COMPLETE = ".bmllm.json"  # the last file that a run writes into `new`

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class Busy(Exception):
    """Another run has the lock."""


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """The hidden folder of `out`, with an empty `new` in it; Busy while another run has it.

    The lock is a flock, which the system drops when the process ends, however that happens, and which other
    containers and hosts see. What a killed run left is removed or finished first. At the end nothing stays,
    nor the folders made on the way to it.
    """
    work = out.with_name(f".{out.name}.partial")
    with ExitStack() as stack:
        with uninterrupted():
            made: list[Path] = []
            stack.callback(_remove_empty, made)
            lock = _acquire(work, made)
            stack.callback(os.close, lock)
            stack.enter_context(cleaned_up(lambda: _release(work, made)))
        _recover(work, out)
        (work / NEW).mkdir()
        yield work


def put_in_place(work: Path, out: Path) -> None:
    """Make `new` the output folder. What was there is afterwards in `new` or `old`."""
    if not out.exists():
        (work / NEW).rename(out)
    elif not _exchange(work / NEW, out):
        out.rename(work / OLD)
        (work / NEW).rename(out)  # when killed before this, `_recover` does it


def remains(work: Path) -> list[Path]:
    return [folder for folder in (work / NEW, work / OLD) if folder.exists()]


def _acquire(work: Path, made: list[Path]) -> int:
    """The open lock file; adds to `made` the folders that had to be made, innermost last."""
    path = work / LOCK
    while True:
        _make(work, made)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # the run that had it has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Busy from None
        if _is_open_as(lock, path):
            return lock
        os.close(lock)


def _make(work: Path, made: list[Path]) -> None:
    made += [path for path in (*reversed(work.parents), work) if not path.exists()]
    work.mkdir(parents=True, exist_ok=True)


def _is_open_as(number: int, path: Path) -> bool:
    """Whether the path still leads to the open file: another run may have removed it before we locked it."""
    try:
        return os.path.samestat(os.fstat(number), os.lstat(path))
    except FileNotFoundError:
        return False


def _release(work: Path, made: list[Path]) -> None:
    for folder in remains(work):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        (work / LOCK).unlink()
    _remove_empty([*made, work])


def _remove_empty(folders: list[Path]) -> None:
    for path in reversed(folders):
        with suppress(OSError):  # not empty: another run is there, or a file of the user's
            path.rmdir()


def _recover(work: Path, out: Path) -> None:
    """Finish what a killed run had begun to put in place; remove what it left."""
    if (work / OLD).exists() and not out.exists():
        (work / (NEW if (work / NEW / COMPLETE).exists() else OLD)).rename(out)
    for folder in remains(work):
        shutil.rmtree(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))
