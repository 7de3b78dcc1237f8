"""A process that works on what others wrote, within limits of time and memory.

A chat template is a program, and a tokenizer holds regular expressions and rewriting rules: either may run
for ever or fill all memory, by mistake or by intent. No call of a library has a limit; a process has.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Protocol

ANSWER_SECONDS = 120  # until an answer comes: a busy machine may give a process little of its time
ANSWER_BYTES = 64 << 20
REASON_LENGTH = 200
START = "import sys; sys.path = sys.argv[1].split({sep!r}); from {module} import main; main(sys.argv[2:])"


@dataclass(frozen=True)
class Limits:
    """What a piece of work may take."""

    seconds: int  # of computing
    megabytes: int  # of address space, beyond what the process has already

    def apply(self) -> None:
        """Confine this process from now on; where a system has no such limit, it goes without."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + self.seconds)
        with suppress(OSError):  # macOS has no /proc
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + (self.megabytes << 20))


def _lower(kind: int, amount: int) -> None:
    hard = resource.getrlimit(kind)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


class Refused(Exception):
    """There is no answer; the reason in one line."""


class Process(Protocol):
    """As much of a `subprocess.Popen` as is needed here."""

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Confined:
    """The other end of a process that runs `main(words)` of a module, which hands the words on to `serve`.

    It starts at once. `first` are the limits of what it does before requests, `each` those of a request.
    """

    def __init__(self, module: str, argument: str, first: Limits, each: Limits, **environment: str) -> None:
        self._pipe, far = Pipe()
        self._limits, self._each = first, each
        limits = json.dumps([astuple(first), astuple(each)])
        self._process = start(module, [argument, limits], far, environment)
        far.close()
        weakref.finalize(self, _end, self._process)

    def ask(self, name: str, *arguments: Any) -> Any:
        """What the method `name` returns; Refused when it fails or goes beyond a limit."""
        self._limits = self._each
        with suppress(OSError):  # it has ended; receiving says why
            self._pipe.send_bytes(json.dumps([name, *arguments]).encode())
        return self.answer()

    def answer(self) -> Any:
        """The next answer; the first one is to no request: the process is ready."""
        try:
            if not self._pipe.poll(ANSWER_SECONDS):
                _end(self._process)
            value, problem = json.loads(self._pipe.recv_bytes(ANSWER_BYTES))
        except (EOFError, OSError):
            raise Refused(self._why_ended()) from None
        if problem is not None:
            raise Refused(problem)
        return value

    def _why_ended(self) -> str:
        code = _end(self._process, patience=1)
        if code == -signal.SIGXCPU:
            return f"it takes more than {self._limits.seconds} s"
        if code == -signal.SIGKILL:
            return f"it takes more than {ANSWER_SECONDS} s, or was killed"
        return f"it crashes, or needs more than {self._limits.megabytes} MB"


def start(module: str, words: Sequence[str], pipe: Connection, environment: dict[str, str]) -> Process:
    """A process that calls `main` of a module with the words and the number of its end of a pipe."""
    code = START.format(sep=os.pathsep, module=module)
    return subprocess.Popen(
        [sys.executable, "-c", code, os.pathsep.join(sys.path), *words, str(pipe.fileno())],
        pass_fds=[pipe.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def _end(process: Process, patience: float = 0) -> int:
    """Kill a process that does not end by itself; its exit code."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(patience)
    process.kill()
    return process.wait()


def serve(words: Sequence[str], make: Callable[[str], object]) -> None:
    """In the process: make an object of the argument, then call its methods as asked, until nobody asks."""
    argument, limits, number = words
    pipe = Connection(int(number))
    first, each = (Limits(*amounts) for amounts in json.loads(limits))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    made, problem = _attempt(make, first, argument)
    pipe.send_bytes(_packed(None, problem))
    with suppress(EOFError, OSError):
        while True:
            name, *arguments = json.loads(pipe.recv_bytes())
            pipe.send_bytes(_packed(*_attempt(getattr(made, name), each, *arguments)))


def _packed(value: object, problem: str | None) -> bytes:
    return json.dumps([value, problem]).encode()


def _attempt(action: Callable[..., Any], limits: Limits, *arguments: Any) -> tuple[Any, str | None]:
    """What the action returns, or why it failed."""
    limits.apply()
    try:
        return action(*arguments), None
    except MemoryError:
        return None, f"it needs more than {limits.megabytes} MB"
    except BaseException as error:  # a panic of Rust code is no Exception
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    """One line of printable characters; the kind of the error where the text alone would say little."""
    text = " ".join(str(error).split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[:REASON_LENGTH]
    return shown if " " in shown else f"{type(error).__name__}: {shown}".rstrip(": ")
