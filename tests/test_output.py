"""Output appears whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from compiler.output import STAGING, require_space, staged_output


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, text: str) -> None:
    (folder / "config").mkdir()
    (folder / "config" / "config.json").write_text(text)
    (folder / "m.bmodel").write_text(text)


def write_and_fail(out: Path, error: BaseException) -> None:
    with staged_output(out) as staging:
        write(staging, "2")
        raise error


def test_files_move_when_all_are_written(tmp_path):
    out = tmp_path / "a" / "b"
    with staged_output(out) as staging:
        write(staging, "1")
        assert files(out) != {}
        assert not (out / "m.bmodel").exists()
    assert files(out) == {"config/config.json": "1", "m.bmodel": "1"}
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_second_run_replaces_what_it_wrote_and_nothing_else(tmp_path):
    for text in "12":
        with staged_output(tmp_path) as staging:
            write(staging, text)
        (tmp_path / "mine").write_text("0")
        (tmp_path / "config" / "stale").touch()
    with staged_output(tmp_path) as staging:
        write(staging, "3")
    assert files(tmp_path) == {"config/config.json": "3", "m.bmodel": "3", "mine": "0"}


def test_a_folder_takes_the_place_of_a_file_and_back(tmp_path):
    (tmp_path / "config").touch()
    (tmp_path / "m.bmodel").mkdir()
    with staged_output(tmp_path) as staging:
        write(staging, "1")
    assert files(tmp_path) == {"config/config.json": "1", "m.bmodel": "1"}


@pytest.mark.parametrize(
    "error", [UserError("bad"), KeyboardInterrupt(), SystemExit(143), OSError(28, "full")]
)
def test_nothing_stays_after_an_error(tmp_path, error):
    with pytest.raises(type(error)):
        write_and_fail(tmp_path / "a" / "b", error)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_after_an_error(tmp_path):
    with staged_output(tmp_path) as staging:
        write(staging, "1")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path, KeyboardInterrupt())
    assert files(tmp_path) == {"config/config.json": "1", "m.bmodel": "1"}


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    abandoned = tmp_path / f"{STAGING}{int(gone.stdout)}"
    abandoned.mkdir()
    alive = tmp_path / f"{STAGING}{os.getppid()}"
    alive.mkdir()
    with staged_output(tmp_path):
        assert not abandoned.exists()
        assert alive.exists()


def test_too_little_space_is_refused(tmp_path):
    require_space(tmp_path / "new" / "out", 10_000)
    with pytest.raises(UserError, match=r"no space for -o .*/new/out: needs 1000000000.00 GB"):
        require_space(tmp_path / "new" / "out", 10**18)
