"""A command that does what no command of ours should, for the tests of the harness."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    return int(globals()[arguments[0]]() or 0)


def succeed() -> None:
    Path("out").touch()


def refuse() -> int:
    print("error: no\nbecause\nit is wrong", file=sys.stderr)
    return 2


def note() -> None:
    print("note: that took long", file=sys.stderr)


def raise_error() -> None:
    {}["missing"]


def spin() -> None:
    while True:
        pass


def wait() -> None:
    os.mkfifo("pipe")
    Path("pipe").read_text()


def leave_a_child_behind() -> None:
    if os.fork() == 0:
        signal.pause()


def allocate() -> None:
    b"x" * (1 << 40)


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail_and_write() -> int:
    Path("out").touch()
    return refuse()


def change_the_input() -> None:
    Path("in").write_text("other")


def remove_the_input() -> None:
    Path("in").unlink()


def leave_staging() -> None:
    Path("out").mkdir()
    Path("out/.partial-1").touch()


def talk() -> int:
    print("error: no\n" * 4, file=sys.stderr)
    return 2


def colour() -> int:
    print("error: \x1b[31mno", file=sys.stderr)
    return 2


def fail_silently() -> int:
    return 1


def warn() -> None:
    print("UserWarning: old", file=sys.stderr)


def end_oddly() -> int:
    return 3
