"""Run a case in a fork of a process that has imported everything, within limits.

A process of its own would spend seconds for each case on importing torch. The parent must stay at one thread
until it forks, and does nothing but make inputs and wait. Linux only (pidfd, capset).
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.case import Case, Doubt, Wrong

ROOT = Path(__file__).resolve().parents[2]
WARM = (
    "runtime_sim", "torch", "transformers", "tokenizers", "jinja2.sandbox", "safetensors.numpy",
    "llm_convert", "llm_opt", "bmodel_tool",
    "driver.convert", "driver.bisect", "frontend.build", "frontend.importer",
    "runtime_sim.tool.chat", "runtime_sim.tool.verify", "runtime_sim.tool.reference", "runtime_sim.tool.run",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a case may take. A whole compilation takes half a second and 0.1 GB more than the warm process; a
    chat about pictures starts two processes of its own, which takes up to 11 s on a busy machine.
    """

    memory: int = 3 << 30  # bytes of address space beyond that of the warm process
    cpu_seconds: int = 30
    wall_seconds: float = 90
    file_bytes: int = 1 << 30


@dataclass(frozen=True)
class Run:
    """How a child ended."""

    status: int  # exit code, or minus the signal's number
    seconds: float
    peak: int  # bytes of resident memory
    limit: str  # "time" or "memory" where it went beyond, else ""
    stdout: str
    stderr: str
    verdict: tuple[str, str] = ("", "")  # "wrong" or "look", and why; from the case's check
    changes: list[str] = field(default_factory=list)  # paths that it made, changed or removed


def warm_up() -> None:
    """Import all that a command may need, in one thread."""
    for name in WARM:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    sys.modules["dialects"].load_all()
    sys.modules["passes"].load_all()
    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"


def run_case(case: Case, folder: Path, limits: Limits = Limits()) -> Run:
    """Run it in its folder; the outputs of the child are files beside the folder."""
    before = snapshot(folder)
    logs = folder.with_name(folder.name + ".logs")
    logs.mkdir(exist_ok=True)
    for log in logs.iterdir():
        log.unlink()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(case, folder, logs, limits)
    status, peak, limit = _wait(child, limits)
    seconds = time.monotonic() - start
    stdout, stderr = (_read(logs / name) for name in ("stdout", "stderr"))
    kind, _, why = _read(logs / "verdict").partition(" ")
    return Run(status, seconds, peak, limit, stdout, stderr, (kind, why), _changes(before, snapshot(folder)))


def _read(path: Path, limit: int = 1 << 20) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return file.read(limit).decode(errors="replace")


def _wait(child: int, limits: Limits) -> tuple[int, int, str]:
    """Exit status, peak memory, and the limit that it went beyond; nothing of its process group is left."""
    handle = os.pidfd_open(child)
    ended, _, _ = select.select([handle], [], [], limits.wall_seconds)
    os.close(handle)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet, or nothing of the group runs
        if not ended:
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
    late = not ended or code == -signal.SIGXCPU
    return code, peak, "time" if late else "memory" if peak > limits.memory else ""


# ---- the child ----


def _be_child(case: Case, folder: Path, logs: Path, limits: Limits) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        _redirect_all(logs)
        _limit(limits)
        code = call(case.command, case.arguments)
        if code == 0 and case.check:
            _redirect(2, logs / "check")
            (logs / "verdict").write_text(_verdict(case.check), errors="backslashreplace")
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code)


def _redirect_all(logs: Path) -> None:
    for number, path in enumerate((Path(os.devnull), logs / "stdout", logs / "stderr")):
        _redirect(number, path)
    sys.stdin = open(0, encoding="utf-8")
    sys.stdout = open(1, "w", encoding="utf-8")
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")


def _redirect(number: int, path: Path) -> None:
    """Make a standard stream that file, for libraries in other languages too."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), number)


def _limit(given: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + given.memory,
        resource.RLIMIT_CPU: given.cpu_seconds,
        resource.RLIMIT_FSIZE: given.file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value + 1))  # at the second one of time comes KILL, which says less
    _drop_capabilities()


def _drop_capabilities() -> None:
    """Root becomes a user whom permissions bind (capget(2): version 3, this process, three empty sets)."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, sets)


def call(command: str, arguments: list[str]) -> int:
    """A command's `main`, as the interpreter would run it."""
    try:
        return int(importlib.import_module(command).main(arguments) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, frames)
        return 1


def _verdict(check: Callable[[], object]) -> str:
    try:
        check()
    except Wrong as error:
        return f"wrong {error}"
    except Doubt as error:
        return f"look {error}"
    except BaseException as error:
        return f"look the check itself failed: {type(error).__name__}: {error}"
    return ""


# ---- the folder ----


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """What lies in a folder: mode, inode, size and time of each path; of a folder only its mode."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            state = os.lstat(path)
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            times = (0, 0, 0) if is_folder else (state.st_ino, state.st_size, state.st_mtime_ns)
            found[os.path.relpath(path, folder)] = (state.st_mode, *times)
    return found


def _changes(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> list[str]:
    made = [f"made {path}" for path in after if path not in before]
    gone = [f"removed {path}" for path in before if path not in after]
    return made + gone + [f"changed {path}" for path in before if path in after and before[path] != after[path]]


def remove(folder: Path) -> None:
    """Remove a folder, whatever modes the files in it have."""
    shutil.rmtree(folder, ignore_errors=True)
