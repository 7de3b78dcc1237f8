"""Every line at which a run can be stopped, and whole commands at random moments; says what came of it.

pytest -m fuzz tests/fuzz/test_kills.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.driver.output_runs import EXIT_CODES
from tests.driver.test_kills import CASES, lines_of, no_waiting_for_disks, stop_and_check

pytestmark = pytest.mark.fuzz
ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = 40  # whole commands that are stopped
__all__ = ["no_waiting_for_disks"]  # a fixture of all tests here


def report(capsys: pytest.CaptureFixture[str], title: str, outcomes: Counter[str]) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    with capsys.disabled():
        print(f"\n{title}: {outcomes.total()} stops: {counts}")


@pytest.mark.parametrize("number", EXIT_CODES)
@pytest.mark.parametrize("case", CASES)
def test_every_line(tmp_path, capsys, case, number):
    outcomes: Counter[str] = Counter()
    for line in range(len(lines_of(tmp_path / "count", case))):
        outcomes[stop_and_check(tmp_path / str(line), case, number, line)] += 1
    report(capsys, f"{case}, {signal.Signals(number).name}", outcomes)


def digests(folder: Path) -> dict[str, bytes]:
    """What a folder holds, with its manifest."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(model: Path, out: Path, *flags: str) -> subprocess.Popen[str]:
    line = [sys.executable, ROOT / "llm_convert.py", "-m", model, "-s", "64", "-q", "w4bf16", "-o", out, *flags]
    take_interrupts = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  (a shell's jobs do not)
    return subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=take_interrupts
    )


def stopped(process: subprocess.Popen[str], number: int, after: float) -> tuple[int, str]:
    """Exit code and messages, without notes, of a command that gets a signal some seconds after its start."""
    while process.poll() is None and not takes_signals(process.pid):
        pass
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    return process.returncode, "".join(line for line in errors.splitlines(True) if not line.startswith("note: "))


def takes_signals(process: int) -> bool:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> signal.SIGTERM - 1 & 1)


VARIANTS = (("--symmetric",), ("-g", "32"))  # of one bmodel


def test_whole_commands_at_random_moments(tiny_checkpoint, tmp_path, capsys):
    """Each is to replace the bmodel that is there by the other variant."""
    model, out = tiny_checkpoint("llama", layers=1), tmp_path / "out"
    start = time.monotonic()
    wanted = [finished(model, tmp_path / "wanted" / str(index), flags) for index, flags in enumerate(VARIANTS)]
    seconds = (time.monotonic() - start) / len(VARIANTS)
    assert finished(model, out, VARIANTS[0]) == wanted[0]
    draw, now, outcomes = random.Random(0), 0, Counter()
    for index in range(COMMANDS):
        number = list(EXIT_CODES)[index % len(EXIT_CODES)]
        code, errors = stopped(command(model, out, *VARIANTS[1 - now]), number, draw.uniform(0, 1.1 * seconds))
        state = "old" if digests(out) == wanted[now] else "new"
        now = now if state == "old" else 1 - now
        assert digests(out) == wanted[now]
        told = "" if number == signal.SIGKILL else "interrupted\n"
        done = {(0, ""), (-number, "")} if state == "new" else set()  # the last where Python itself ends
        assert (code, errors) in {(EXIT_CODES[number], told)} | done
        outcomes[f"{signal.Signals(number).name} exit {code} {state}"] += 1
    assert finished(model, out, VARIANTS[0]) == wanted[0]
    assert sorted(os.listdir(tmp_path)) == ["out", "wanted"]
    report(capsys, f"whole commands of {seconds:.1f} s", outcomes)


def finished(model: Path, out: Path, flags: tuple[str, ...]) -> dict[str, bytes]:
    assert command(model, out, *flags).wait(300) == 0
    return digests(out)
