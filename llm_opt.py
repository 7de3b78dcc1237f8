#!/usr/bin/env python3
"""Run passes on IR text: IR in, named passes, IR out."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import argparse
from collections.abc import Sequence
from pathlib import Path

import dialects
import passes
from compiler import files
from compiler.command import Parser, run_command
from compiler.diagnostics import UserError
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.target.attribute import set_target
from compiler.target.chips import chip
from driver.passes_page import passes_page
from passes.manager import HEADER, PassManager, list_passes, parse_pipeline, passes_left, pipeline_text

EXAMPLE = "llm_opt.py ir/block_0.05.canonicalize.mlir -p 'fuse-swiglu,fuse-qkv' --print-ir-after-change"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    description = "Run passes on IR text. A dump of llm_convert.py --dump-ir goes on by itself."
    parser = Parser(prog="llm_opt.py", description=description, example=EXAMPLE)
    parser.add_version()
    parser.add_argument("file", nargs="?", help="IR text, or - for standard input")
    parser.add_argument("-p", "--passes", metavar="PIPELINE", help="such as 'a,b{option=value option=value}'")
    parser.add_argument("-c", "--chip", help="the module's bm.target, where it does not say one")
    parser.add_argument("-o", "--output", type=Path, help="write the IR there instead of to standard output")
    parser.add_argument("--stop-after", metavar="PASS", help="leave out the passes after this one")
    parser.add_argument("--print-ir-after", metavar="PASS", action="append", default=[], help="to stderr")
    parser.add_argument("--print-ir-after-change", action="store_true",
                        help="after each pass that changes the IR")
    parser.add_argument("--dump-ir", metavar="DIR", type=Path, help="one numbered file per pass")
    parser.add_argument("--verify-each", action=argparse.BooleanOptionalAction, default=True,
                        help="check the IR after each pass (default: on)")
    parser.add_argument("--time-passes", action="store_true", help="report the seconds of each pass")
    parser.add_argument("--list-passes", action="store_true", help="list passes and their options, and stop")
    args = parser.parse_args(argv)
    if args.file is None and not args.list_passes:
        parser.error("name a file of IR text, or - for standard input")
    return args


def read_text(file: str) -> str:
    if file != "-":
        return files.read_text(Path(file))
    data = sys.stdin.buffer.read(files.JSON_BYTES + 1)
    if len(data) > files.JSON_BYTES:
        raise UserError(f"standard input has more than {files.JSON_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not a text in UTF-8 (byte {error.start})") from None


def run(args: argparse.Namespace) -> None:
    text = read_text(args.file)
    pipeline = args.passes if args.passes is not None else passes_left(text) or ""
    manager = PassManager(
        parse_pipeline(pipeline),
        verify_each=args.verify_each,
        dump_dir=args.dump_ir,
        dump_prefix="stdin" if args.file == "-" else Path(args.file).name.partition(".")[0],
        stop_after=args.stop_after,
        print_after=args.print_ir_after,
        print_after_change=args.print_ir_after_change,
        source=args.file,
    )
    module = parse_module(text, args.file)
    if args.chip is not None:
        set_target(module, chip(args.chip), args.file)
    with passes_page(args.dump_ir):
        left = manager.run(module)
    header = f"{HEADER}{pipeline_text(left)}\n" if left else ""
    result = header + print_module(module)
    if args.output is None:
        sys.stdout.write(result)
    else:
        files.write_text(args.output, result)
    if args.time_passes:
        print(manager.timing_report(), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    dialects.load_all()
    passes.load_all()
    if args.list_passes:
        return run_command(lambda: print(list_passes()))
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
