"""The hidden folder of a run: one at a time, and what a killed run left is finished or goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from driver import workspace
from driver.output import staged_output
from tests.driver.output_runs import NAME, ONE, files, refused, write


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    with staged_output(tmp_path / "out", NAME) as run:
        (run.folder / NAME).write_text("1")
        refused(tmp_path / "out", "another run is writing to -o .*/out: wait until it has ended")
        write(tmp_path / "beside", "2")
    assert files(tmp_path / "out") == {NAME: "1"}


HOLD = """
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from driver.output import staged_output
with staged_output(Path(sys.argv[1]), "x"):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_killed_run_holds_no_lock_and_its_files_go(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "writing\n"
        refused(tmp_path / "out", "another run")
        process.kill()
    assert os.listdir(tmp_path) == [".out.partial"]
    write(tmp_path / "out", "1")
    assert os.listdir(tmp_path) == ["out"]


def test_a_lock_that_was_removed_while_waiting_is_none(tmp_path, monkeypatch):
    """Between opening and locking the lock of another run, that run ends and removes it."""
    import fcntl

    flock, calls = fcntl.flock, []

    def late(number: int, flags: int) -> None:
        if not calls:
            (tmp_path / ".out.partial" / "lock").unlink()
        calls.append(number)
        flock(number, flags)

    monkeypatch.setattr("fcntl.flock", late)
    write(tmp_path / "out", "1")
    assert len(calls) == 2
    assert files(tmp_path / "out") == ONE


def test_a_hidden_folder_of_the_user_is_not_emptied(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "mine").write_text("0")
    write(tmp_path / "out", "1")
    assert files(tmp_path / ".out.partial") == {"mine": "0"}


def folder(path: Path, **texts: str) -> None:
    path.mkdir(parents=True)
    for name, text in texts.items():
        (path / name).write_text(text)


def test_a_run_has_an_empty_folder_and_leaves_none(tmp_path):
    out = tmp_path / "made" / "out"
    with workspace.workspace(out) as work:
        assert (work.parent, list((work / workspace.NEW).iterdir())) == (out.parent, [])
        with pytest.raises(workspace.Busy), workspace.workspace(out):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_the_new_folder_takes_the_place_of_the_old_one(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(workspace, "_exchange", lambda one, other: False)
    out = tmp_path / "out"
    for text, before in (("1", {}), ("2", {"file": "1"})):
        with workspace.workspace(out) as work:
            (work / workspace.NEW / "file").write_text(text)
            workspace.put_in_place(work, out)
            assert files(out) == {"file": text}
            assert [files(path) for path in workspace.remains(work)] == ([before] if before else [])
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("complete", "kept"), [(True, "2"), (False, "1")])
def test_a_run_killed_between_two_moves_is_finished_or_undone(tmp_path, complete, kept):
    """Where folders cannot be exchanged, there is a moment without an output folder."""
    work = tmp_path / ".out.partial"
    folder(work / workspace.OLD, file="1")
    folder(work / workspace.NEW, file="2", **({workspace.COMPLETE: "{}"} if complete else {}))
    with workspace.workspace(tmp_path / "out"):
        assert (tmp_path / "out" / "file").read_text() == kept
        assert [path.name for path in workspace.remains(work)] == [workspace.NEW]
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_run_was_writing_goes(tmp_path):
    folder(tmp_path / "out", file="1")
    folder(tmp_path / ".out.partial" / workspace.NEW, **{"file": "2", workspace.COMPLETE: "{}"})
    with workspace.workspace(tmp_path / "out") as work:
        assert list((work / workspace.NEW).iterdir()) == []
    assert (tmp_path / "out" / "file").read_text() == "1"
