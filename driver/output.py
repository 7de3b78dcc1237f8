"""Output that appears whole or not at all, and never in place of what is not ours.

A run writes into a hidden folder beside the output folder. When all is written, what stays of the output
folder is linked into it, and the two change places in one step. So whenever a run is killed, the output
folder holds all of the old or all of the new. Its manifest says what earlier runs wrote; nothing else is
replaced or removed.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.diagnostics import UserError
from compiler.files import FULL_DISK, nearest_existing, read_json_object, reason
from compiler.interrupt import uninterrupted
from driver.workspace import COMPLETE, NEW, Busy, put_in_place, remains, workspace

MANIFEST = COMPLETE
CONFIG = "config"  # the one folder in an output folder
LOG = "model.log"
EMBEDDING = f"{CONFIG}/embedding.bin"
FOREIGN = f"no {MANIFEST} names it as written by an earlier run"
CHANGED = "it was changed since an earlier run wrote it"
ELSEWHERE = "move it away, or give another -o"
HASHED_BYTES = 16 << 20  # of each file; the head of a bmodel holds the hashes of the rest


@contextmanager
def staged_output(out_dir: Path, name: str) -> Iterator[Output]:
    """Where to write the bmodel `name` and what goes with it; when the block ends well, all is in `out_dir`.

    When it does not (an error, a signal), nothing is. Other files of `out_dir` stay. UserError at once when
    another run writes there, when what no earlier run wrote is in the way, or when nothing can be written.
    """
    with ExitStack() as stack:
        with _told(out_dir):
            out = _place(out_dir)
            output = Output(out_dir, out, stack.enter_context(workspace(out)), name)
            output.check_owned()
            output.try_names()
        with _told(out_dir, FULL_DISK):
            yield output
        with _told(out_dir):
            output.commit()


@dataclass(frozen=True)
class Output:
    """One run's files on their way into an output folder."""

    shown: Path  # the folder as the user named it
    out: Path  # where that is
    work: Path
    name: str  # of the bmodel

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self.work / NEW

    def check_owned(self) -> None:
        """UserError when the run would replace, or could not keep, what is not of an earlier run."""
        wrote = self.manifest()
        for path in _entries(self.out):
            relative = str(path.relative_to(self.out))
            if self._replaces(path) and (not _is_file(path) or wrote.get(relative) != fingerprint(path)):
                why = CHANGED if relative in wrote else FOREIGN
                raise UserError(f"-o {self.shown}: {path} is in the way, {why}: {ELSEWHERE}")

    def _replaces(self, path: Path) -> bool:
        """Whether the run replaces an entry of the output folder, or could not keep it, as a folder."""
        inside = path.parent != self.out
        return inside or path.name in (self.name, LOG, CONFIG) or stat.S_ISDIR(path.lstat().st_mode)

    def try_names(self) -> None:
        """Make and remove what `commit` will make, so that what cannot be made is told before the work."""
        try:
            (self.folder / self.name).touch()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            text = f"the name {self.name} is too long: give the model's folder a shorter one"
            raise UserError(text) from None
        (self.folder / self.name).unlink()
        for path in self._kept():
            os.link(path, self.folder / path.name, follow_symlinks=False)
            (self.folder / path.name).unlink()

    def check_config(self) -> None:
        """UserError when files in config/ differ from those that other bmodels in the folder go with."""
        others = [name for name in self.manifest() if name.endswith(".bmodel") and name != self.name]
        other = next((name for name in others if (self.out / name).exists()), None)
        if other is None:
            return
        for name in sorted(_names(self.folder / CONFIG) ^ _names(self.out / CONFIG)):
            if f"{CONFIG}/{name}" != EMBEDDING:
                self._refuse_config(other, name)
        for name in sorted(_names(self.folder / CONFIG) & _names(self.out / CONFIG)):
            if not filecmp.cmp(self.folder / CONFIG / name, self.out / CONFIG / name, shallow=False):
                self._refuse_config(other, name)

    def _refuse_config(self, other: str, name: str) -> None:
        raise UserError(
            f"-o {self.shown} holds {other}, which goes with another {CONFIG}/{name}: {ELSEWHERE}"
        )

    def commit(self) -> None:
        """Put what was written into the output folder, in one step."""
        self.check_owned()
        self.check_config()
        written = list(_entries(self.folder))
        wrote = {str(path.relative_to(self.folder)): fingerprint(path) for path in written}
        _to_disk(written)
        self._keep()
        stays = {name: value for name, value in self.manifest().items() if (self.folder / name).exists()}
        text = json.dumps({"wrote": stays | wrote}, indent=1, sort_keys=True)
        (self.folder / MANIFEST).write_text(text + "\n")
        _to_disk([self.folder / MANIFEST, *{path.parent for path in written}])
        with uninterrupted():
            put_in_place(self.work, self.out)
            self._save_strays()

    def manifest(self) -> dict[str, Any]:
        """Size and hash of each file that earlier runs wrote and left there, by its name in the folder."""
        path = self.out / MANIFEST
        if not os.path.lexists(path):
            return {}
        wrote = read_json_object(path).get("wrote")
        if not isinstance(wrote, dict):
            raise UserError(f"{path} is not one of ours: {ELSEWHERE}")
        return wrote

    def _keep(self) -> None:
        """Link what stays of the output folder into the new one."""
        if self.out.exists():
            shutil.copymode(self.out, self.folder)
        embedding = self.out / EMBEDDING  # bmodels of any run may need it
        stays = embedding.exists() and not (self.folder / EMBEDDING).exists()
        for path in [*self._kept(), *([embedding] if stays else [])]:
            os.link(path, self.folder / path.relative_to(self.out), follow_symlinks=False)

    def _kept(self) -> list[Path]:
        return [path for path in _entries(self.out) if not self._replaces(path)]

    def _save_strays(self) -> None:
        """Move over what came into the old folder, or was changed there, after its files had been linked."""
        replaced = (self.name, LOG, CONFIG, MANIFEST)
        for path in [path for folder in remains(self.work) for path in folder.iterdir()]:
            target = self.out / path.name
            if path.name not in replaced and not _is_same(path, target):
                path.rename(target)


def require_space(out_dir: Path, folder: Path, needed: int) -> None:
    """UserError when the disk of `folder`, from which all moves to `out_dir`, has not `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space for -o {out_dir}: needs {needed / 1e9:.2f} GB, its disk has {free / 1e9:.2f} GB free"
        )


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and hash of a regular file, enough to know whether it is still as it was written."""
    with path.open("rb") as file:
        head = file.read(HASHED_BYTES)
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.sha256(head).hexdigest()}


def _place(out_dir: Path) -> Path:
    """Where the folder is, or will be; UserError when it cannot be exchanged for a new one."""
    out = Path(os.path.realpath(out_dir))
    problem = _problem(out_dir, out)
    if problem:
        raise UserError(f"-o {out_dir} {problem}")
    return out


def _problem(out_dir: Path, out: Path) -> str | None:
    within = f"give a folder in it, such as {out_dir / 'bmodel'}"
    existing = nearest_existing(out)
    if os.path.islink(out_dir) and existing != out:
        return f"is a link to {os.readlink(out_dir)}, which is not there"
    if not existing.is_dir():
        return f"cannot be made: {existing} is a file"
    if _is_mount(out):
        return f"is a mount point, which cannot be replaced in one step: {within}"
    if Path.cwd().is_relative_to(out):
        return f"is the folder that this command runs in, which cannot be replaced: {within}"
    for folder in (existing, out.parent) if existing == out else (existing,):
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"cannot be written: no permission to write in {folder}"
    return None


def _is_mount(folder: Path) -> bool:
    """Also of a folder of the same file system, which `ismount` does not see."""
    if os.path.ismount(folder):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return False
    return str(folder).replace(" ", "\\040") in (line.split(" ")[4] for line in mounts)


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in an output folder, and instead of config/ what lies in that; not the manifest."""
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if path.name == CONFIG and path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())
        elif path.name != MANIFEST:
            yield path


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both names lead to one file."""
    return os.path.lexists(other) and os.path.samestat(one.lstat(), other.lstat())


@contextmanager
def _told(out_dir: Path, numbers: Sequence[int] | None = None) -> Iterator[None]:
    """Errors of the system, or those with these numbers only, as UserError."""
    try:
        yield
    except Busy:
        raise UserError(
            f"another run is writing to -o {out_dir}: wait until it has ended, or give another -o"
        ) from None
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"cannot write -o {out_dir}: {reason(error)}{where}; nothing was written") from None


def _to_disk(paths: Iterable[Path]) -> None:
    """Have files and names survive a power cut; errors that a disk tells only now are told."""
    for path in paths:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
