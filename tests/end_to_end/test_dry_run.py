"""A dry run beside what then happens: the file and the memory that it takes, to the byte, in all forms."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.bmodel import read_bmodel
from compiler.bmodel.memory import device_memory
from driver.convert import convert
from driver.options import ConvertOptions
from tests import packers
from tests.architectures.configs import config_of
from tests.architectures.measure import write
from tests.frontend.oracle import reference_model
from tests.packers import AWQ, quantize_checkpoint


def check(options: ConvertOptions, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert convert(replace(options, dry_run=True)) is None
    told = capsys.readouterr().out
    path = convert(options)
    found = read_bmodel(path)
    assert f"\nfile: {path.stat().st_size:,} bytes\n" in told
    memory = [int(text.replace(",", "")) for text in re.findall(r"memory.*: ([\d,]+) bytes:", told)]
    assert memory == [device_memory(found, device).total for device in range(options.num_device)]
    assert "nearest published: " in told or options.num_device > 1


FORMS = {
    "two cores": {"chip": "bm1688"},
    "two devices": {"num_device": 2},
    "an embedding on disk, and logits": {"embedding_disk": True, "do_sample": True},
    "stages": {"chunk_length": 16},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tiny_checkpoint, tmp_path, capsys, form):
    folder = tiny_checkpoint("llama", layers=1)
    check(ConvertOptions(folder, 64, "w4bf16", out_dir=tmp_path / "out", **FORMS[form]), capsys)


def test_a_mixture_of_experts(tmp_path: Path, capsys):
    write(reference_model({**config_of("qwen3_moe"), "num_hidden_layers": 1}), tmp_path / "model")
    check(ConvertOptions(tmp_path / "model", 32, "w4bf16", q_group_size=64, out_dir=tmp_path / "out"), capsys)


def test_codes_that_are_taken_over(tiny_checkpoint, tmp_path, capsys):
    folder = shutil.copytree(tiny_checkpoint("llama", layers=1, dtype="float16"), tmp_path / "model")
    quantize_checkpoint(folder, packers.awq, AWQ)
    check(ConvertOptions(tmp_path / "model", 32, out_dir=tmp_path / "out"), capsys)
