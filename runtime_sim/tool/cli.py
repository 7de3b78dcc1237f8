"""Arguments of bmodel_tool.py. Each command is a function in a file of its own, imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from compiler.diagnostics import CompileError

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_DESCRIPTION = "Look into a bmodel, run its nets on the simulated chip, check it, chat with it."


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    command = importlib.import_module(f"runtime_sim.tool.{arguments.command}")
    try:
        status: int = command.run(arguments)
    except CompileError as error:
        print(f"bmodel_tool: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bmodel_tool.py", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_looking(commands)
    _add_running(commands)
    return parser


def _add_looking(commands: Commands) -> None:
    info = _add(commands, "info", "nets, shapes, memory and weights")
    info.add_argument("--json", action="store_true", help="everything, for programs")

    disasm = _add(
        commands, "disasm", "the instructions of a net, one a line, in an order in which they may run"
    )
    disasm.add_argument("net")
    disasm.add_argument("--engine", choices=("tiu", "dma"), help="only this engine's queue")

    check = _add(commands, "check", "whether runtime and chat programs can use the file; proves the waits")
    check.add_argument("--no-hash", action="store_true", help="do not read all weights to check their sha256")

    diff = _add(commands, "diff", "what differs between two files")
    diff.add_argument("other", type=Path)


def _add_running(commands: Commands) -> None:
    run = _add(commands, "run", "run one net")
    run.add_argument("net")
    run.add_argument("--input", type=Path, required=True, help=".npz with an array for each input name")
    run.add_argument("--output", type=Path, required=True, help=".npz to write")
    _add_exact(run)

    verify = _add(commands, "verify", "compare each net with the Hugging Face model in float32")
    verify.add_argument("--reference", type=Path, required=True, help="the model's folder")
    verify.add_argument("--prompt", help="text to run on (default: fixed arbitrary tokens)")
    verify.add_argument(
        "--min-cosine", type=float, default=0.95, help="fail below this (default %(default)s)"
    )
    _add_exact(verify)

    chat = _add(commands, "chat", "answer a prompt, greedily, with tokenizer and template of config/")
    chat.add_argument("--prompt", required=True)
    chat.add_argument("--max-tokens", type=int, help="stop after this many (default: what the caches hold)")
    chat.add_argument(
        "--config", type=Path, help="folder of the tokenizer (default: config/ beside the file)"
    )
    chat.add_argument(
        "--raw", action="store_true", help="continue the prompt as it is, without chat template"
    )
    _add_exact(chat)


def _add(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("file", type=Path, help="the .bmodel")
    return command


def _add_exact(command: argparse.ArgumentParser) -> None:
    text = "matrix products bit for bit as the chip's, many times slower"
    command.add_argument("--exact", action="store_true", help=text)
