"""What all commands have in common: their help, their errors, and what they do with signals and streams."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from compiler import __version__
from compiler.diagnostics import CompileError, UserError, log, printable
from compiler.files import FULL_DISK
from compiler.interrupt import MESSAGE, interruptible
from compiler.versions import OURS, versions

INTERRUPTED = 128 + signal.SIGINT
TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"


class Parser(argparse.ArgumentParser):
    """An argparse with an example in its help, and errors of two lines instead of the whole usage."""

    def __init__(self, *, example: str, **settings: Any) -> None:
        epilog, form = f"example:\n  {example}", argparse.RawDescriptionHelpFormatter
        super().__init__(epilog=epilog, formatter_class=form, allow_abbrev=False, **settings)
        self.given: Sequence[str] = ()  # the arguments

    def add_version(self) -> None:
        text = "print it and stop; with -v, also those of libraries and system, for a report"
        self.add_argument("--version", action=Version, help=text)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"error: {message}\nsee {self.prog} --help\n"))


class Version(argparse.Action):
    """A flag that takes no value, prints the version, or with -v many, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        given = parser.given if isinstance(parser, Parser) else ()
        verbose = "-v" in given or "--verbose" in given
        try:
            print("\n".join(versions()) if verbose else f"bmllm {__version__}", flush=True)
        except OSError:  # whoever read our output has stopped
            drop_output()
        parser.exit()


def run_command(action: Callable[[], object]) -> int:
    """Run a command's action and return its exit code: 0, 2 for bad input, 1 for what cannot be compiled.

    A traceback is left to errors that are the compiler's own. Signals end the process: `compiler.interrupt`.
    Its memory is given back as it is: collecting what torch has made takes longer than a small compile.
    """
    atexit.register(gc.freeze)
    open_streams()
    with interruptible():
        try:
            action()
            sys.stdout.flush()
        except CompileError as error:
            return fail(error.render(), error.exit_code)
        except KeyboardInterrupt:
            return fail(MESSAGE, INTERRUPTED)
        except BrokenPipeError:  # whoever read our output has stopped
            drop_output()
            return 1
        except OSError as error:
            settle_output()
            return fail(system_message(error), 2)
        except MemoryError:
            return fail("error: not enough memory", 2)
    return 0


def not_installed(error: ImportError, what: str) -> Exception:
    """What to tell when a library cannot be imported; that one of our modules cannot is our mistake."""
    name = (error.name or "").split(".")[0]
    if name in OURS:
        return error
    advice = TORCH if name == "torch" else f"pip install {name or 'torch transformers'}"
    return UserError(f"{what} needs {name or 'torch and transformers'} ({error}): {advice}")


def open_streams() -> None:
    """Closed standard streams lead to nowhere, so that no file of ours gets their numbers; a name of a file
    that is no UTF-8 is printed as it is.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def system_message(error: OSError) -> str:
    """What the system said, and of which file. That of `-o` is told by `driver.output`."""
    if error.errno in FULL_DISK and error.filename is None:
        return f"error: cannot write standard output or dumps: {error.strerror}"
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"error: {where}{error.strerror or error}"


def settle_output() -> None:
    """Print what is still to be printed, or drop it when that cannot be."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()


def drop_output() -> None:
    """Keep the exit from trying again to write what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int) -> int:
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)
    return code


def show_log(verbose: bool) -> None:
    """Print the compiler's log to stderr: notes always, the stages to a terminal or when asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormat())
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO if sys.stderr.isatty() else logging.WARNING)


class LogFormat(logging.Formatter):
    """Warnings read "note: ...": the work goes on, and errors are exceptions."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "note: " if record.levelno >= logging.WARNING else ""
        return printable(prefix + record.getMessage())
