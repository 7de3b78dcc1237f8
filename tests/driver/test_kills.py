"""Whenever a run is stopped, the output folder holds all of the old or all of the new, and the next run works."""

from __future__ import annotations

import errno
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from tests.driver.output_runs import (
    EXIT_CODES,
    FAILED,
    exit_code,
    failing,
    files,
    lines_run,
    signalled,
    start,
    write,
)

CASES = {
    "no folder": lambda out: None,
    "the user's folder": lambda out: make_user_folder(out),
    "the same bmodel": lambda out: write(out, "1"),
    "another bmodel": lambda out: write(out, "1", "other.bmodel", embedding="1"),
    "links and files": lambda out: (make_user_folder(out), write(out, "1"), write(out, "1", "other.bmodel")),
}
RICHEST = "links and files"
ONCE = [(RICHEST, signal.SIGINT), (RICHEST, signal.SIGHUP)]  # one handler takes them and SIGTERM
SAMPLE = 4  # of the lines of a run, in each case and for each signal; tests/fuzz takes them all


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda number: None)


def make_user_folder(out: Path) -> None:
    out.mkdir()
    (out / "notes").write_text("0")


def run(out: Path) -> None:
    write(out, "2", config={"config.json": "{}"})


def prepared(folder: Path, case: str) -> tuple[Path, dict[str, str]]:
    """An output folder as it was before, and what a run makes of it."""
    CASES[case](folder / "model" / "out")
    CASES[case](folder / "out")
    run(folder / "model" / "out")
    return folder / "out", files(folder / "model" / "out")


def check_after(out: Path, old: dict[str, str], new: dict[str, str], between: bool = False) -> str:
    """All "old" or all "new", and a run more works and leaves nothing else. Where folders cannot be exchanged, there
    may be none `between`.
    """
    found = files(out) if out.exists() else {}
    assert found in (old, new) or (between and not out.exists())
    run(out)
    assert files(out) == new
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    return "new" if found == new else "old"


def stop_and_check(folder: Path, case: str, number: int, line: int, between: bool = False) -> str:
    """A run that gets a signal before the given line, and what it left: "old" or "new"."""
    (folder / "model").mkdir(parents=True)
    out, new = prepared(folder, case)
    old = files(out) if out.exists() else {}
    code = signalled(number, line, lambda: run(out))
    assert code in (0, EXIT_CODES[signal.Signals(number)])
    if number != signal.SIGKILL:
        assert not (folder / ".out.partial").exists()
    return check_after(out, old, new, between)


def crossed(*numbers: int) -> list[tuple[str, int]]:
    return [(case, number) for case in CASES for number in numbers]


def lines_of(folder: Path, case: str) -> list[str]:
    folder.mkdir()
    CASES[case](folder / "out")
    return lines_run(lambda: run(folder / "out"))


def around(lines: list[str], *calls: str) -> list[int]:
    """The lines that make one of the calls, and those after them."""
    found = [index for index, line in enumerate(lines) if any(call in line for call in calls)]
    return sorted({index + after for index in found for after in (0, 1)})


@pytest.mark.parametrize(("case", "number"), [*crossed(signal.SIGKILL, signal.SIGTERM), *ONCE])
def test_a_stopped_run_leaves_the_old_or_the_new(tmp_path, case, number):
    lines = lines_of(tmp_path / "count", case)
    sample = random.Random(f"{case} {number}").sample(range(len(lines)), SAMPLE)
    for line in {*sample, *around(lines, "renameat2(", "(work / NEW).rename")}:
        stop_and_check(tmp_path / str(line), case, number, line)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_where_folders_cannot_be_exchanged_the_next_run_ends_the_work(tmp_path, monkeypatch, number):
    monkeypatch.setattr("driver.workspace._exchange", lambda one, other: False)
    lines = lines_of(tmp_path / "count", RICHEST)
    for line in around(lines, "out.rename", "(work / NEW).rename"):
        stop_and_check(tmp_path / str(line), RICHEST, number, line, between=True)


@pytest.mark.parametrize(("case", "number"), [*crossed(errno.ENOSPC), (RICHEST, errno.EROFS), (RICHEST, errno.EIO)])
def test_a_failing_disk_leaves_the_old_or_the_new(tmp_path, case, number):
    for call in range(1, 40, 3):
        folder = tmp_path / str(call)
        (folder / "model").mkdir(parents=True)
        out, new = prepared(folder, case)
        old = files(out) if out.exists() else {}
        code = failing(call, OSError(number, os.strerror(number)), lambda out=out: run(out))
        assert files(out) == (new if code == 0 else old) if out.exists() else code == FAILED
        check_after(out, old, new)


def files_at_once(out: Path) -> dict[str, str]:
    """The files of a folder that was in its place for as long as they were read: one that is replaced meanwhile is
    also removed meanwhile, and never comes back.
    """
    while True:
        folder = os.open(out, os.O_RDONLY)  # open, so that no new folder gets its number
        try:
            with suppress(FileNotFoundError):
                found = files(out)
                if os.path.samestat(os.fstat(folder), os.stat(out)):
                    return found
        finally:
            os.close(folder)


def test_of_two_runs_at_once_one_writes(tmp_path):
    """Whatever both make of it when they write again and again, it is never mixed."""
    out = tmp_path / "out"
    write(out, "2")
    whole = files(out)

    def many() -> None:
        for _ in range(20):
            with suppress(UserError):  # the other run has the folder
                run(out)
            assert files_at_once(out) == whole

    assert [exit_code(process) for process in [start(many), start(many)]] == [0, 0]
    assert os.listdir(tmp_path) == ["out"]
