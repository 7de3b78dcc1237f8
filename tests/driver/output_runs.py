"""Small runs that write output as the driver does, and runs that are stopped on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from compiler import bmodel, interrupt
from compiler.diagnostics import UserError
from compiler.interrupt import interruptible
from driver import output, workspace
from driver.output import CONFIG, EMBEDDING, LOG, MANIFEST, staged_output

NAME = "m.bmodel"
ONE = {"config/config.json": "{}", NAME: "1", "model.log": "1"}  # after one run that writes "1"
TRACED = {module.__file__ for module in (output, workspace, interrupt, bmodel.writer)}
FAILED = 99  # exit code of a child whose action raised


def write(
    out: Path,
    text: str,
    name: str = NAME,
    *,
    config: dict[str, str] | None = None,
    embedding: str | None = None,
    error: BaseException | None = None,
) -> None:
    """A run whose files all hold `text`, but those of config/; it ends with the error when one is given."""
    with staged_output(out, name) as run:
        (run.folder / CONFIG).mkdir()
        for file, content in ({"config.json": "{}"} if config is None else config).items():
            (run.folder / CONFIG / file).write_text(content)
        run.check_config()
        if embedding is not None:
            (run.folder / EMBEDDING).write_text(embedding)
        with bmodel.writer.atomic_file(run.folder / name) as file:
            file.write(text.encode())
        (run.folder / LOG).write_text(text)
        if error is not None:
            raise error


def refused(out: Path, message: str, name: str = NAME, **more: str | dict[str, str]) -> None:
    """The run is a user's mistake, and changes nothing."""
    before = files(out.parent)
    with pytest.raises(UserError, match=message):
        write(out, "2", name, **more)
    assert files(out.parent) == before


def files(folder: Path) -> dict[str, str]:
    """What a folder holds, by relative name; not the manifest."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def start(action: Callable[[], object]) -> int:
    """A forked process that does `action` and exits with 0, or with FAILED when that raises."""
    process = os.fork()
    if not process:
        code = FAILED
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return process


def exit_code(process: int) -> int:
    """Of a process that was started; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def lines_run(action: Callable[[], object]) -> list[str]:
    """The lines of the code that writes output, as the action runs them."""
    return _traced(action, lambda line: None)


def signalled(number: int, line: int, action: Callable[[], object]) -> int:
    """Exit code of a process that gets a signal before it runs the line of that number, from 0, and takes it as
    commands do.
    """

    def strike(now: int) -> None:
        if now == line:
            os.kill(os.getpid(), number)

    def run() -> None:
        with interruptible():
            _traced(action, strike)

    return exit_code(start(run))


def _traced(action: Callable[[], object], strike: Callable[[int], None]) -> list[str]:
    lines: list[str] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            strike(len(lines))
            lines.append(getline(frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return lines


def failing(number: int, error: OSError, action: Callable[[], object]) -> int:
    """Exit code of a process in which the call of the system with this number fails, and all after it: 0 when the
    action ends well, FAILED when it raises.
    """
    events = ("open", "os.mkdir", "os.rename", "os.link", "os.truncate")
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in events and not (event == "open" and _only_reads(arguments)):
            count += 1
            if count >= number:
                raise error

    def run() -> None:
        sys.addaudithook(hook)
        action()

    return exit_code(start(run))


def _only_reads(arguments: tuple[Any, ...]) -> bool:
    return not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


EXIT_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
