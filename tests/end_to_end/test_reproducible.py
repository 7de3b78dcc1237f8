"""The same input gives the same bytes, from the checkpoint and from any dump on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import llm_opt
from compiler.bmodel import read_bmodel
from compiler.ir.module import walk
from compiler.ir.parser import parse_module
from compiler.ir.types import BF16
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.chip import GlobalOp, LocalOp, MatmulOp
from driver.convert import convert
from driver.job import Job
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.load import load_model, open_model
from passes.emit_bmodel import encode

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def dumped(tiny_checkpoint, tmp_path_factory) -> tuple[ConvertOptions, Path]:
    """A compile that left a file per pass: its options, and the bmodel."""
    folder = tmp_path_factory.mktemp("dumped")
    options = ConvertOptions(
        tiny_checkpoint("qwen2", layers=1, heads=2, kv_heads=1), 64, "w4bf16", out_dir=folder / "out", dump_ir=folder / "ir"
    )
    return options, convert(options)


def final_text(options: ConvertOptions, name: str) -> str:
    (path,) = options.dump_ir.glob(f"{name}.*.insert-waits.mlir")
    return without_header(path.read_text())


def without_header(text: str) -> str:
    return text.partition("\n")[2] if text.startswith("// passes-left:") else text


def test_a_second_compile_gives_the_same_bytes(dumped, tmp_path):
    options, first = dumped
    second = convert(replace(options, out_dir=tmp_path / "again", dump_ir=None))
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()


def test_modules_encoded_at_once_give_the_same_streams_and_let_go_of_their_instructions(dumped):
    options, _ = dumped
    options = replace(options, passes=default_pipeline(options), dump_ir=None)
    model, weights = load_model(open_model(options.model_path), 64, 64, BF16)
    early, late = Job(options, model, weights), Job(options, model, weights, keeps_instructions=True)
    for job in (early, late):
        job.compile()
    held = [{type(op) for group in job.nets for op in walk(group.module)} for job in (early, late)]
    assert held[1] - held[0] > {LocalOp, MatmulOp}
    assert held[0] == {ModuleOp, FuncOp, GlobalOp, ReturnOp}
    streams = [[stage.cores for net in job.bmodel().nets for stage in net.stages] for job in (early, late)]
    assert streams[0] == streams[1]


def test_every_dump_leads_to_the_same_program(dumped, tmp_path):
    options, _ = dumped
    dumps = sorted(options.dump_ir.glob("*.mlir"))
    assert len(dumps) > 20
    for path in dumps:
        result = tmp_path / "result.mlir"
        assert llm_opt.main([str(path), "-o", str(result)]) == 0
        assert result.read_text() == final_text(options, path.name.partition(".")[0]), f"from {path.name}"


def test_the_last_dump_holds_the_streams(dumped):
    options, path = dumped
    module = parse_module(final_text(options, "block_0"), "dump")
    bmodel = read_bmodel(path)
    for function in module.functions():
        (streams,) = bmodel.net(f"{function.sym_name}_0").stages[0].cores
        assert encode(function) == streams


def test_the_order_of_hashes_does_not_matter(dumped):
    options, _ = dumped
    start = next(iter(options.dump_ir.glob("block_0.00.*.mlir")))
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, ROOT / "llm_opt.py", start],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert run.stdout == final_text(options, "block_0")
