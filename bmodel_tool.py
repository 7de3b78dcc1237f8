#!/usr/bin/env python3
"""Look into a bmodel, run its nets on the simulated chip, check it, chat with it; see --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # ours, in a checkout and in a wheel

import argparse
import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from compiler.command import Parser, run_command

if TYPE_CHECKING:
    from runtime_sim.tool.verify import Suspect

    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

EXAMPLES = {
    "info": "model.bmodel --json",
    "disasm": "model.bmodel block_cache_0 --engine dma",
    "timing": "model.bmodel --net block_0 --html timeline.html --ir ir",
    "check": "model.bmodel",
    "diff": "model.bmodel other.bmodel",
    "run": "model.bmodel lm_head --input states.npz --output token.npz",
    "verify": "qwen2_7b/model.bmodel --reference ./Qwen2-7B-Instruct",
    "quality": "qwen2_7b/model.bmodel --reference ./Qwen2-7B-Instruct",
    "chat": "qwen2_7b/model.bmodel --prompt 'What is the capital of France?'",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 says that a check, a comparison or a verification found something."""
    arguments = parser().parse_args(argv)
    status = 0

    def run() -> None:
        nonlocal status
        status = importlib.import_module(f"runtime_sim.tool.{arguments.command}").run(arguments)

    return run_command(run) or status


def parser() -> Parser:
    description = "Look into a bmodel, run its nets on the simulated chip, check it, chat with it."
    example = "bmodel_tool.py info qwen2_7b/qwen2-7b-instruct_w4bf16_seq384_bm1684x_1dev_static.bmodel"
    result = Parser(prog="bmodel_tool.py", description=description, example=example)
    result.add_version()
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_looking(commands)
    _add_running(commands)
    _add_quality(commands)
    _add_talking(commands)
    return result


def _add_looking(commands: Commands) -> None:
    info = _add(commands, "info", "nets, shapes, memory and weights")
    info.add_argument("--json", action="store_true", help="everything, for programs")

    disasm = _add(
        commands, "disasm", "the instructions of a net, one a line, in an order in which they may run"
    )
    _add_net(disasm)
    disasm.add_argument("--engine", choices=("tiu", "dma"), help="only this engine's queue")

    timing = _add(commands, "timing", "how long each net and the model take, in two estimates; and why")
    timing.add_argument("--net", help="only this net, with its cycles by instruction")
    timing.add_argument("--json", action="store_true", help="everything, for programs")
    timing.add_argument("--html", type=Path, metavar="OUT", help="write a page with timelines and memory")
    text = "folder that llm_convert.py --dump-ir wrote, for the names of modules in the page"
    timing.add_argument("--ir", type=Path, metavar="DIR", help=text)

    text = "whether runtime and chat programs can use the file; proves the waits and the rules of the chip"
    check = _add(commands, "check", text)
    check.add_argument("--no-hash", action="store_true", help="do not read all weights to check their sha256")

    diff = _add(commands, "diff", "what differs between two files")
    diff.add_argument("other", type=Path, help="the .bmodel to compare it with")


def _add_running(commands: Commands) -> None:
    run = _add(commands, "run", "run one net")
    _add_net(run)
    text = ".npz with an array for each input name"
    run.add_argument("--input", type=Path, required=True, metavar="FILE", help=text)
    run.add_argument("--output", type=Path, required=True, metavar="FILE", help=".npz to write")
    _add_machine(run)

    verify = _add(commands, "verify", "compare each net with the Hugging Face model in float32")
    verify.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder or GGUF file")
    text = "text to run on (default: fixed arbitrary tokens)"
    verify.add_argument("--prompt", metavar="TEXT", help=text)
    text = "run the tower on this picture; may be given several times (default: arbitrary ones; needs pillow)"
    verify.add_argument("--image", type=Path, action="append", metavar="FILE", help=text)
    text = "fail below this (default: 0.9 with 4-bit weights, 0.995 with 8, 0.999 with 16)"
    verify.add_argument("--min-cosine", type=float, metavar="X", help=text)
    text = "folder of llm_convert.py --dump-ir: find the pass and the op where the first wrong net parts"
    verify.add_argument("--ir", type=Path, metavar="DIR", help=text)
    verify.add_argument("--bisect", metavar="NET", help="look into this net, right or wrong; needs --ir")
    verify.set_defaults(bisect_net=_bisect_net)
    _add_machine(verify)


def _add_quality(commands: Commands) -> None:
    text = "what the file lost of what its model knows: perplexity and divergence on texts, error by layer"
    quality = _add(commands, "quality", text)
    quality.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder or GGUF file")
    text = "text to run on (default: some prose, and some code)"
    quality.add_argument("--text", type=Path, metavar="FILE", help=text)
    quality.add_argument("--tokens", type=_count, metavar="N", help="no more than so many of a text")
    text = "write a page with the error over the layers, and those that add most"
    quality.add_argument("--html", type=Path, metavar="OUT", help=text)
    quality.add_argument("--json", action="store_true", help="everything, for programs")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected a number of tokens, 2 or more, not {text!r}")
    return int(text)


def _add_talking(commands: Commands) -> None:
    chat = _add(commands, "chat", "answer a prompt, with tokenizer and template of config/")
    text = "what to ask; - reads it from standard input"
    chat.add_argument("--prompt", required=True, metavar="TEXT", help=text)
    text = "show it this picture before the prompt; may be given several times (needs pillow)"
    chat.add_argument("--image", type=Path, action="append", metavar="FILE", help=text)
    text = "draw tokens as config/generation_config.json says (default: take the most likely)"
    chat.add_argument("--sample", action="store_true", help=text)
    text = "draw the same tokens each time (default: others)"
    chat.add_argument("--seed", type=int, metavar="N", help=text)
    text = "stop after this many (default: what the caches hold)"
    chat.add_argument("--max-tokens", type=int, metavar="N", help=text)
    text = "folder of the tokenizer (default: config/ beside the file)"
    chat.add_argument("--config", type=Path, metavar="DIR", help=text)
    text = "continue the prompt as it is, without chat template"
    chat.add_argument("--raw", action="store_true", help=text)
    _add_machine(chat)


def _bisect_net(suspect: Suspect, folder: Path) -> Iterator[str]:
    from driver.bisect import bisect_net  # imports the whole compiler, which other commands do without

    return bisect_net(suspect, folder)


def _add(commands: Commands, name: str, text: str) -> Parser:
    description, example = f"{text[0].upper()}{text[1:]}.", f"bmodel_tool.py {name} {EXAMPLES[name]}"
    command = commands.add_parser(name, help=text, description=description, example=example)
    command.add_argument("file", type=Path, help="the .bmodel")
    return command


def _add_net(command: Parser) -> None:
    command.add_argument("net", help="such as block_0; `info` lists them")


def _add_machine(command: Parser) -> None:
    """How the chip is simulated."""
    text = "matrix products bit for bit as the chip's, many times slower"
    command.add_argument("--exact", action="store_true", help=text)
    text = "let engines and cores take turns in another order that their waits permit, drawn by N"
    command.add_argument("--order", type=int, metavar="N", help=text)


if __name__ == "__main__":
    sys.exit(main())
