"""The command llm_convert.py: its flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compiler.command import Parser, not_installed, run_command, show_log
from compiler.diagnostics import printable
from compiler.garbage import uncollected
from compiler.sizes import parse_bytes
from compiler.target.chips import CHIPS
from driver.options import (
    ADDRESS,
    AUTO,
    CACHE_SIZE,
    CALIBRATIONS,
    DEVICE_MEMORY,
    GROUP,
    MODES,
    ConvertOptions,
)
from driver.rules import BITS

EXAMPLE = "llm_convert.py -m ./Qwen2-7B-Instruct -s 384 -q w4bf16 -g 128 -c bm1684x -o qwen2_7b"


def convert_main(arguments: Sequence[str] | None = None) -> int:
    """Run llm_convert.py; returns its exit code."""
    return run_command(lambda: convert(arguments))


def convert(arguments: Sequence[str] | None) -> None:
    settings = vars(convert_parser().parse_args(arguments))
    show_log(settings.pop("verbose"))
    options = ConvertOptions(**settings)
    try:
        with uncollected():  # also while this is imported, of which all stays
            from driver.convert import convert as compile_model  # all there is: after --help and bad flags

            written = compile_model(options)
    except ImportError as error:
        raise not_installed(error, "compiling") from error
    if written is not None:
        print(printable(str(written)) if sys.stdout.isatty() else written)


def convert_parser() -> Parser:
    """The flags of llm_convert.py; their destinations are the fields of ConvertOptions."""
    parser = Parser(
        prog="llm_convert.py",
        description="Compile the folder of a Hugging Face language model into one bmodel for Sophgo TPUs.",
        example=EXAMPLE,
    )
    parser.add_version()
    parser.add_argument("--list", action=List, help="print what is supported, and stop")
    _add_model_flags(parser.add_argument_group("what to compile"))
    _add_chip_flags(parser.add_argument_group("for which chip"))
    _add_output_flags(parser.add_argument_group("what to write"))
    _add_developer_flags(parser.add_argument_group("for developers of the compiler"))
    return parser


class List(argparse.Action):
    """A flag that takes no value, prints what is supported, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from driver.listing import listing

        print(listing(parser))
        parser.exit()


def folder(text: str) -> Path:
    """A flag's value; an empty one, of a variable that a script did not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a folder, not ''")
    return Path(text)


def pixels(text: str) -> tuple[int, ...]:
    """Height and width as in "672,896", or their product."""
    numbers = text.split(",")
    if len(numbers) > 2 or not all(each.strip().isdecimal() and int(each) for each in numbers):
        raise argparse.ArgumentTypeError(f"expected H,W or a number, such as 672,896 or 602112, not {text!r}")
    return tuple(map(int, numbers))


def scheduler(text: str) -> str:
    """The address of a scheduler."""
    if not ADDRESS.fullmatch(text) or int(text.rpartition(":")[2]) > 65535:
        raise argparse.ArgumentTypeError(f"expected dask://HOST:PORT, not {text!r}")
    return text


def memory(text: str) -> int:
    """Bytes of a size as people write it."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = "folder with config.json and safetensors, or a GGUF file"
    add("-m", "--model_path", type=folder, required=True, metavar="DIR", help=text)
    text = "tokens of a conversation: prompt and answer"
    add("-s", "--seq_length", type=int, required=True, metavar="N", help=text)
    text = "tokens of a prompt (default: as many as -s)"
    add("--max_input_length", type=int, default=0, metavar="N", help=text)
    text = "tokens of the shortest stage of decode, of which others hold doubles (default: one stage, of -s)"
    add("--chunk_length", type=int, default=0, metavar="N", help=text)
    text = "pixels of a picture at most, as H,W or a number, where a tower takes any size (default: 672,896)"
    add("--max_pixels", type=pixels, default=(), metavar="N", help=text)
    kinds = ", ".join(MODES)
    text = f"{kinds}: type of activations, and bits of the blocks' weights (default: as in the checkpoint)"
    add("-q", "--quantize", choices=(AUTO, *MODES), default=AUTO, metavar="MODE", help=text)
    text = f"weights that share a scale in w4 and w8 (default: {GROUP}, or as in the checkpoint)"
    add("-g", "--q_group_size", type=int, metavar="N", help=text)
    add("--symmetric", action="store_true", help="w4 without zero points: smaller, a little less exact")
    text = "bits of the output embedding's weights: 16, 8 or 4 (default: 16)"
    add("--lm_head_quantize", type=int, choices=BITS[::-1], default=16, metavar="BITS", help=text)
    text = "bits of modules with such names, as in 'model.layers.*.mlp.down_proj=8'; again for others"
    add("--keep", action="append", metavar="PATTERN=BITS", help=text)
    text = "bytes of the file at most, as 4.2GB: modules have more than 4 bits where these serve most"
    add("--size", type=memory, metavar="SIZE", help=text)
    text = "the same by the mean of the bits of the weights of blocks and head, as 4.5"
    add("--bits", type=float, metavar="MEAN", help=text)
    text = "how codes are chosen: none, search or gptq (default: search where there are some of 4 bits)"
    add("--calibrate", choices=(AUTO, *CALIBRATIONS), default=AUTO, metavar="METHOD", help=text)
    text = "text that the model runs on to calibrate (default: random tokens, for gptq its own)"
    add("--calibration_text", type=Path, metavar="FILE", help=text)


def _add_chip_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    names = ", ".join(name for spec in CHIPS.values() for name in (spec.name, *spec.aliases))
    add("-c", "--chip", default="bm1684x", metavar="NAME", help=f"{names} (default: bm1684x)")
    add("--num_device", type=int, default=1, metavar="N", help="chips that share a model (default: 1)")
    add("--num_core", type=int, default=0, metavar="N", help="cores of the chip to use (default: 0, all)")


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    text = "where to write (default: ./tmp)"
    add("-o", "--out_dir", type=folder, default=Path("tmp"), metavar="DIR", help=text)
    text = "write the embedding as config/embedding.bin, not as nets"
    add("--embedding_disk", action="store_true", help=text)
    text = "a head that gives logits, and nets that take the largest or draw by them"
    add("--do_sample", action="store_true", help=text)
    text = "say what it would cost: sizes, memory, time, speed; read no weights, write nothing"
    add("--dry_run", action="store_true", help=text)
    text = "memory of a device that --dry_run compares with, such as 16GB or 8GiB (default: 16GB)"
    add("--device_memory", type=memory, default=DEVICE_MEMORY, metavar="SIZE", help=text)
    add("--verify", action="store_true", help="run each net of the result and compare it with the model")


def _add_developer_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dump-ir", type=folder, metavar="DIR", help="write the IR after each pass into DIR, and a page")
    add("--stop-after", metavar="PASS", help="stop after this pass; write no bmodel")
    text = "a file that --dump-ir wrote, maybe edited: its module goes on from there; again for others"
    add("--resume-ir", type=Path, metavar="FILE", action="append", help=text)
    add("--passes", metavar="PIPELINE", help="run these passes instead of the chip's: 'a,b{option=value}'")
    text = "weights quantized at once (default: one per CPU)"
    add("-j", "--jobs", type=int, default=0, metavar="N", help=text)
    text = "have the workers of this scheduler of dask make the weights, as dask://HOST:PORT"
    add("--executor", type=scheduler, metavar="ADDRESS", help=text)
    text = "keep finished programs and weights in DIR, and take those that are there (default: neither)"
    add("--cache", type=folder, metavar="DIR", help=text)
    text = "of the cache at most; what was used longest ago goes first (default: 20GB)"
    add("--cache_size", type=memory, default=CACHE_SIZE, metavar="SIZE", help=text)
    add("-v", "--verbose", action="store_true", help="say what is being done")
