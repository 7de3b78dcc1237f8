"""The command llm_convert.py, and what all commands do with errors and signals."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from compiler.chips import CHIPS
from compiler.diagnostics import CompileError, UserError, printable
from compiler.interrupt import MESSAGE, interruptible
from compiler.options import MODES, ConvertOptions
from compiler.output import FULL_DISK

EXAMPLE = """\
example:
  llm_convert.py -m ./Qwen2-7B-Instruct -s 384 -q w4bf16 -g 128 -c bm1684x -o qwen2_7b
"""
OURS = ("compiler", "dialects", "passes", "runtime_sim")
INTERRUPTED = 128 + signal.SIGINT


class Parser(argparse.ArgumentParser):
    """An argparse whose errors are two lines instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"error: {message}\nsee {self.prog} --help\n"))


def convert_main(arguments: Sequence[str] | None = None) -> int:
    """Run llm_convert.py; returns its exit code."""
    return run_command(lambda: convert(arguments))


def convert(arguments: Sequence[str] | None) -> None:
    settings = vars(convert_parser().parse_args(arguments))
    show_log(settings.pop("verbose"))
    options = ConvertOptions(**settings)
    try:
        from compiler.driver import convert as compile_model  # the whole compiler: after --help and bad flags

        written = compile_model(options)
    except ImportError as error:
        raise not_installed(error) from error
    if written is not None:
        print(printable(str(written)) if sys.stdout.isatty() else written)


def not_installed(error: ImportError) -> Exception:
    """What to tell when a library cannot be imported; that one of our modules cannot is our mistake."""
    if (error.name or "").split(".")[0] in OURS:
        return error
    return UserError(f"compiling needs torch and transformers, {error}: pip install torch transformers")


def convert_parser() -> Parser:
    """The flags of llm_convert.py; their destinations are the fields of ConvertOptions."""
    parser = Parser(
        prog="llm_convert.py",
        description="Compile the folder of a Hugging Face language model into one bmodel for Sophgo TPUs.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_model_flags(parser.add_argument_group("what to compile"))
    _add_chip_flags(parser.add_argument_group("for which chip"))
    _add_output_flags(parser.add_argument_group("what to write"))
    _add_developer_flags(parser.add_argument_group("for developers of the compiler"))
    return parser


def folder(text: str) -> Path:
    """A flag's value; an empty one, of a variable that a script did not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a folder, not ''")
    return Path(text)


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "-m",
        "--model_path",
        type=folder,
        required=True,
        metavar="DIR",
        help="folder with config.json and safetensors",
    )
    add(
        "-s",
        "--seq_length",
        type=int,
        required=True,
        metavar="N",
        help="tokens of a conversation: prompt and answer",
    )
    add(
        "--max_input_length",
        type=int,
        default=0,
        metavar="N",
        help="tokens of a prompt (default: as many as -s)",
    )
    add(
        "-q",
        "--quantize",
        choices=MODES,
        required=True,
        metavar="MODE",
        help=f"{', '.join(MODES)}: the type of activations, and blocks with weights of 4 or 8 bits",
    )
    add(
        "-g",
        "--q_group_size",
        type=int,
        default=64,
        metavar="N",
        help="weights that share a scale in w4 and w8 (default: 64)",
    )
    add("--symmetric", action="store_true", help="w4 without zero points: smaller, a little less exact")


def _add_chip_flags(group: argparse._ArgumentGroup) -> None:
    names = ", ".join(CHIPS)
    group.add_argument("-c", "--chip", default="bm1684x", help=f"{names} (default: bm1684x)")
    group.add_argument(
        "--num_device", type=int, default=1, metavar="N", help="chips that share a model (default: 1)"
    )
    group.add_argument(
        "--num_core", type=int, default=0, metavar="N", help="cores of the chip to use (default: 0, all)"
    )


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "-o",
        "--out_dir",
        type=folder,
        default=Path("tmp"),
        metavar="DIR",
        help="where to write (default: ./tmp)",
    )
    add(
        "--embedding_disk",
        action="store_true",
        help="write the embedding as config/embedding.bin, not as nets",
    )
    add("--dry_run", action="store_true", help="say what it would cost; write nothing")
    add("--verify", action="store_true", help="run each net of the result and compare it with the model")


def _add_developer_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dump-ir", type=folder, metavar="DIR", help="write the IR after each pass into DIR")
    add("--stop-after", metavar="PASS", help="stop after this pass; write no bmodel")
    add(
        "--resume-ir",
        type=Path,
        metavar="FILE",
        action="append",
        help="a file that --dump-ir wrote, maybe edited: its module goes on from there; again for others",
    )
    add("--passes", metavar="PIPELINE", help="run these passes instead of the chip's: 'a,b{option=value}'")
    add(
        "-j",
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="weights quantized at once (default: one per CPU)",
    )
    add("-v", "--verbose", action="store_true", help="say what is being done")


def run_command(action: Callable[[], object]) -> int:
    """Run a command's action and return its exit code: 0, 2 for bad input, 1 for what cannot be compiled.

    A traceback is left to errors that are the compiler's own. Signals end the process: `compiler.interrupt`.
    """
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
    """What the system said, and of which file. That of `-o` is told by `compiler.output`."""
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
    log = logging.getLogger("compiler")
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO if sys.stderr.isatty() else logging.WARNING)


class LogFormat(logging.Formatter):
    """Warnings read "note: ...": the work goes on, and errors are exceptions."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = "note: " if record.levelno >= logging.WARNING else ""
        return printable(prefix + record.getMessage())
