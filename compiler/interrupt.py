"""SIGINT, SIGTERM and SIGHUP end a command at any moment: one line, its exit code, nothing half-written.

The handler itself cleans up and ends the process. An exception would get lost where Python drops them (in
destructors and callbacks), would become an ImportError in the start of a C extension, and would wait for
threads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESSAGE = "interrupted"

_cleanups: list[Callable[[], object]] = []
_held = 0  # depth of `uninterrupted` blocks
_pending: list[int] = []  # what arrived in them


def install() -> None:
    """From here on signals end the process so; those that it was started to ignore (nohup) stay ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextmanager
def interruptible() -> Iterator[None]:
    """As `install`, inside the block only."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def cleaned_up(action: Callable[[], object]) -> Iterator[None]:
    """Do `action` when the block ends, and when a signal ends the process inside of it."""
    _cleanups.append(action)
    try:
        yield
    finally:
        action()
        _cleanups.remove(action)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that arrives in the block takes effect after it."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _pending and not _held:
            _end(_pending.pop())


def _end(number: int, frame: object = None) -> None:
    if _held:
        _pending.append(number)
        return
    for action in reversed(_cleanups):
        with suppress(Exception):
            action()
    with suppress(OSError):
        os.write(2, f"{MESSAGE}\n".encode())
    os._exit(128 + number)
