"""Output appears whole or not at all, and nothing that is not ours is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compiler.diagnostics import UserError
from driver import workspace
from driver.output import MANIFEST, require_space, staged_output
from tests.driver.output_runs import NAME, ONE, files, refused, write

TWO = {**ONE, NAME: "2", "model.log": "2"}


def test_files_appear_when_all_are_written(tmp_path):
    out = tmp_path / "a" / "out"
    with staged_output(out, NAME) as run:
        (run.folder / NAME).write_text("1")
        assert not out.exists()
    assert files(out) == {NAME: "1"}
    assert os.listdir(tmp_path / "a") == ["out"]


def test_a_second_run_replaces_what_the_first_wrote(tmp_path):
    write(tmp_path / "out", "1", config={"config.json": "{}", "merges.txt": "1"})
    write(tmp_path / "out", "2")
    assert files(tmp_path) == {f"out/{name}": text for name, text in TWO.items()}


def test_files_of_the_user_and_other_bmodels_stay(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    (out / "notes").write_text("0")
    (out / "link").symlink_to("nowhere")
    write(out, "1")
    write(out, "2", "n.bmodel")
    assert files(out) == {**ONE, "n.bmodel": "2", "model.log": "2", "notes": "0"}
    assert os.readlink(out / "link") == "nowhere"
    assert out.stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["out"]


def test_what_comes_during_the_run_stays(tmp_path):
    out = tmp_path / "out"
    with staged_output(out, NAME) as run:
        (run.folder / NAME).write_text("1")
        out.mkdir()
        (out / "notes").write_text("0")
    assert files(out) == {NAME: "1", "notes": "0"}


def test_what_comes_or_changes_in_the_last_moment_stays(tmp_path, monkeypatch):
    write(tmp_path / "out", "1")
    (tmp_path / "out" / "edited").write_text("0")

    def late(one: Path, other: Path) -> bool:
        (other / "notes").write_text("0")
        (other / "edited").unlink()
        (other / "edited").write_text("1")
        return exchange(one, other)

    exchange = workspace._exchange
    monkeypatch.setattr(workspace, "_exchange", late)
    write(tmp_path / "out", "2")
    assert files(tmp_path / "out") == {**TWO, "notes": "0", "edited": "1"}


@pytest.mark.parametrize(
    "error", [UserError("bad"), KeyboardInterrupt(), SystemExit(143), OSError(5, "broken")]
)
def test_nothing_stays_after_an_error(tmp_path, error):
    with pytest.raises(type(error)):
        write(tmp_path / "a" / "b", "2", error=error)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path):
    with pytest.raises(UserError, match=r"cannot write -o .*out: full; nothing was written"):
        write(tmp_path / "out", "1", error=OSError(28, "full"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_after_an_error(tmp_path):
    write(tmp_path / "out", "1")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", "2", error=KeyboardInterrupt())
    assert files(tmp_path / "out") == ONE
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_comes_during_a_failed_run_hides_no_message(tmp_path):
    def fail() -> None:
        with staged_output(tmp_path / "a" / "out", NAME):
            (tmp_path / "a" / "notes").write_text("0")
            raise UserError("bad")

    with pytest.raises(UserError, match="bad"):
        fail()
    assert files(tmp_path) == {"a/notes": "0"}


@pytest.mark.parametrize("name", ["config/settings.yaml", "config/config.json", "config", NAME, "model.log"])
def test_what_no_run_wrote_is_not_replaced(tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("0")
    refused(tmp_path / "out", f"{path} is in the way, no {MANIFEST} names it .*: move it away, or give another -o")


@pytest.mark.parametrize("name", ["config/config.json", NAME, "model.log"])
def test_what_was_changed_since_is_not_replaced(tmp_path, name):
    write(tmp_path / "out", "1")
    (tmp_path / "out" / name).write_text("0")
    refused(tmp_path / "out", f"out/{name} is in the way, it was changed since an earlier run")


@pytest.mark.parametrize("name", ["sub", "config/sub", NAME])
def test_folders_of_the_user_are_in_the_way(tmp_path, name):
    write(tmp_path / "out", "1", "other.bmodel")
    (tmp_path / "out" / name).mkdir()
    refused(tmp_path / "out", f"out/{name} is in the way")


def test_a_config_folder_behind_a_link_is_in_the_way(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config").symlink_to(tmp_path / "config")
    refused(tmp_path / "out", "out/config is in the way")


def test_a_manifest_that_names_all_owns_nothing(tmp_path):
    (tmp_path / "out" / "config").mkdir(parents=True)
    (tmp_path / "out" / "config" / "mine").write_text("0")
    (tmp_path / "out" / MANIFEST).write_text('{"wrote": {"config/mine": {}, "../x": {}, "config": {}}}')
    refused(tmp_path / "out", "config/mine is in the way")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"wrote": []}'])
def test_a_foreign_manifest_is_refused(tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(text)
    refused(tmp_path / "out", MANIFEST)


def test_config_files_that_other_bmodels_go_with_are_not_replaced(tmp_path):
    write(tmp_path / "out", "1", "other.bmodel", embedding="1")
    message = "holds other.bmodel, which goes with another config/"
    refused(tmp_path / "out", message + "config.json", config={"config.json": "{1}"})
    refused(tmp_path / "out", message + "merges.txt", config={"config.json": "{}", "merges.txt": ""})
    refused(tmp_path / "out", message + "config.json", config={})
    refused(tmp_path / "out", message + "embedding.bin", embedding="2")
    write(tmp_path / "out", "2", embedding="1")


@pytest.mark.parametrize("second", [NAME, "n.bmodel"])
def test_an_embedding_stays_when_the_next_run_writes_none(tmp_path, second):
    write(tmp_path / "out", "1", embedding="1")
    write(tmp_path / "out", "2", second)
    assert files(tmp_path / "out")["config/embedding.bin"] == "1"
    write(tmp_path / "out", "3", second)


def test_an_embedding_is_replaced_with_its_only_bmodel(tmp_path):
    write(tmp_path / "out", "1", embedding="1")
    write(tmp_path / "out", "2", embedding="2")
    assert files(tmp_path / "out") == {**TWO, "config/embedding.bin": "2"}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    write(tmp_path / "out", "1")
    assert os.readlink(tmp_path / "out") == "real"
    assert files(tmp_path / "real") == ONE


def test_a_link_to_nothing_or_to_itself_is_refused(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    refused(tmp_path / "out", "is a link to nowhere, which is not there")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "Too many levels of symbolic links")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        refused(out, "cannot be made: .*/file is a file")


def test_the_folder_of_the_command_is_refused(tmp_path, monkeypatch):
    (tmp_path / "out" / "config").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out")
    for out in (Path("."), tmp_path / "out"):
        refused(out, "is the folder that this command runs in, which cannot be replaced: give a folder in it")


def test_a_mount_point_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"-o /proc is a mount point, which .*, such as /proc/bmodel"):
        write(Path("/proc"), "1")


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    refused(tmp_path / "out", f"no permission to write in {tmp_path}")
    (tmp_path / "out").mkdir()
    refused(tmp_path / "out", f"no permission to write in {tmp_path}")


@pytest.mark.parametrize("out", ["o" * 300, "new/" + "o" * 250, "o" * 300 + "/out"])
def test_names_that_are_too_long_are_refused(tmp_path, out):
    with pytest.raises(UserError, match=r"cannot write -o .*: File name too long .*; nothing was written"):
        write(tmp_path / out, "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [256, 5000])
def test_a_bmodel_whose_name_is_too_long_is_refused(tmp_path, length):
    refused(tmp_path / "out", "is too long: give the model's folder a shorter one", "m" * length)


def test_a_folder_that_cannot_be_linked_from_is_refused(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").touch()

    def link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted", "notes")

    monkeypatch.setattr("os.link", link)
    refused(tmp_path / "out", r"cannot write -o .*out: Operation not permitted \(notes\)")


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mounts something on a new folder; skips the test where that is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(*flags: str) -> Path:
        done = subprocess.run(["mount", *flags, str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount command")
def test_a_disk_that_is_full_loses_nothing(mounted):
    out = mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs") / "out"
    write(out, "1")
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        write(out, "2" * 300_000)
    assert files(out.parent) == {f"out/{name}": text for name, text in ONE.items()}


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount command")
def test_a_disk_that_is_read_only_is_told_at_once(mounted):
    folder = mounted("-t", "tmpfs", "-o", "ro", "tmpfs")
    refused(folder / "out", f"-o {folder}/out cannot be written: no permission to write in {folder}")


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount command")
def test_a_folder_mounted_from_the_same_disk_is_refused(mounted, tmp_path):
    (tmp_path / "real out").mkdir()
    folder = mounted("--bind", str(tmp_path / "real out"))
    refused(folder, "is a mount point, which cannot be replaced")


def test_too_little_space_is_refused(tmp_path):
    require_space(tmp_path / "out", tmp_path, 10_000)
    with pytest.raises(UserError, match=r"no space for -o .*/out: needs 1000000000.00 GB"):
        require_space(tmp_path / "out", tmp_path, 10**18)
