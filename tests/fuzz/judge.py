"""How a case ended: in one of the ways in which commands may end, or in one of those in which none should."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.case import Case
from tests.fuzz.harness import ROOT, Run

BAD = ("traceback", "crash", "hang", "memory", "wrong", "written", "message")
OUTCOMES = ("right", "found", "refused", "look", *BAD)
LINES = 3  # of an error, without its notes
LIST, LIST_LINES = "tensors do not fit the model", 12  # the one error that lists what it found
CHARACTERS = 2000  # of an error
OWN = tuple(f"{ROOT}/{name}" for name in ("compiler/", "dialects/", "frontend/", "passes/", "runtime_sim/", "driver/", "llm_", "bmodel_"))
TRACEBACK = "Traceback (most recent call last)"
NO_MEMORY = re.compile(r"MemoryError|bad_alloc|[Cc]an't allocate|Cannot allocate|memory allocation of")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Outcome:
    kind: str  # one of OUTCOMES
    cause: str  # the same text for cases with the same fault

    @property
    def bad(self) -> bool:
        return self.kind in BAD


def judge(case: Case, run: Run) -> Outcome:
    """The first of these that holds says what the case is."""
    for rule in (_out_of_time, _out_of_memory, _crashed, _traced, _wrote, _said_badly, _mistaken):
        outcome = rule(case, run)
        if outcome is not None:
            return outcome
    if run.status == 0:
        return Outcome("right", "")
    return Outcome("found" if case.may_find and run.status == 1 and not run.stderr else "refused", "")


def _out_of_time(case: Case, run: Run) -> Outcome | None:
    return Outcome("hang", _origin(case)) if run.limit == "time" else None


def _out_of_memory(case: Case, run: Run) -> Outcome | None:
    if NO_MEMORY.search(run.stderr) and (run.status < 0 or TRACEBACK in run.stderr):
        return Outcome("memory", last_own_frame(run.stderr))
    return Outcome("memory", _origin(case)) if run.limit == "memory" else None


def _crashed(case: Case, run: Run) -> Outcome | None:
    if run.status < 0:
        return Outcome("crash", f"{signal.Signals(-run.status).name} in {case.command}")
    return Outcome("crash", "panic in a library") if "panicked at" in run.stderr else None


def _traced(case: Case, run: Run) -> Outcome | None:
    if TRACEBACK in run.stderr:
        return Outcome("traceback", last_own_frame(run.stderr))
    return None if run.status in (0, 1, 2) else Outcome("crash", f"exit code {run.status} of {case.command}")


def _wrote(case: Case, run: Run) -> Outcome | None:
    allowed = (*case.dumps, *(case.results if run.status == 0 else ()))
    for change in run.changes:
        what, _, path = change.partition(" ")
        inside = any(place == "." or path == place or path.startswith(f"{place}/") for place in allowed)
        named = run.status == 0 and what == "changed" and path in case.arguments
        if not (named or (what == "made" and inside)) or ".partial" in path:
            return Outcome("written", f"{case.command}, exit code {run.status}: {what} {re.sub('[0-9]+', 'N', path)}")
    return None


def _said_badly(case: Case, run: Run) -> Outcome | None:
    lines = [line for line in run.stderr.splitlines() if not line.startswith("note: ")]
    if UNPRINTABLE.search(run.stderr) or (UNPRINTABLE.search(run.stdout) and not case.free_text):
        return Outcome("message", f"{case.command}: control characters")
    if case.verbose:
        return None
    if run.status == 0 and lines:
        return Outcome("message", f"{case.command}: a success says {_words(lines[0])}")
    if len(lines) > (LIST_LINES if lines and LIST in lines[0] else LINES):
        return Outcome("message", f"{case.command}: {len(lines)} lines of error: {_words(lines[0])}")
    if len(run.stderr) > CHARACTERS:
        return Outcome("message", f"{case.command}: more than {CHARACTERS} characters: {_words(lines[0])}")
    if run.status and not lines and not (case.may_find and run.stdout):
        return Outcome("message", f"{case.command}: exit code {run.status} without a word")
    return None


def _mistaken(case: Case, run: Run) -> Outcome | None:
    kind, why = run.verdict
    return Outcome(kind, _words(why.partition("\n")[0])) if kind else None


def _origin(case: Case) -> str:
    """For a case that could not say where it was."""
    name = case.arguments[0] if case.command == "bmodel_tool" and case.arguments else ""
    return f"{case.command} {name}: {_words(case.what)}"


def _words(text: str) -> str:
    """A message without what differs from case to case."""
    return re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "N", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text))[:100]


def last_own_frame(stderr: str) -> str:
    """Type of a traceback's exception and our innermost function in it."""
    frames = list(re.finditer(r'  File "([^"]+)", line \d+, in (\S+)', stderr))
    own = [frame for frame in frames if frame[1].startswith(OWN)]
    place = f"{Path(own[-1][1]).relative_to(ROOT)}:{own[-1][2]}" if own else "no function of ours"
    kind = re.search(r"^([A-Za-z_][\w.]*)(?::|$)", stderr[frames[-1].end() if frames else 0 :], re.M)
    return f"{kind[1] if kind else 'exception'} in {place}"
