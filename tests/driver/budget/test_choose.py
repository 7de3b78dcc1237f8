"""Bits by a budget, from the flag to the file."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from compiler.bmodel import read_bmodel
from compiler.diagnostics import UserError
from driver.budget import choose
from driver.budget.choose import check_budget
from driver.calibration import calibrate
from driver.convert import convert
from driver.options import ConvertOptions

SIZES = {"layers": 3, "hidden": 64, "heads": 2, "kv_heads": 1, "intermediate": 128, "vocab": 320}


@pytest.fixture
def options(tiny_checkpoint, tmp_path) -> ConvertOptions:
    folder = tiny_checkpoint("llama", **SIZES)
    return ConvertOptions(folder, 64, "w4bf16", calibrate="search", out_dir=tmp_path / "out", jobs=1)


def told(caplog) -> tuple[float, list[str]]:
    """The mean of the bits, and the words of the flags that repeat it."""
    (text,) = (text for text in caplog.messages if "the same by" in text)
    caplog.clear()
    found = re.search(r": ([\d.]+) bits per weight, .*; the same by (.*)", text)
    assert found is not None
    return float(found[1]), shlex.split(found[2])


def repeated(options: ConvertOptions, words: list[str], out: Path) -> bytes:
    keep = [value for flag, value in pairwise(words) if flag == "--keep"]
    heads = [int(value) for flag, value in pairwise(words) if flag == "--lm_head_quantize"]
    given = replace(options, size=None, bits=None, keep=keep, out_dir=out, lm_head_quantize=(heads or [16])[0])
    return convert(given).read_bytes()


def test_the_flags_that_are_told_make_the_same_file(options, tmp_path, caplog):
    made = convert(replace(options, bits=6.5)).read_bytes()
    mean, words = told(caplog)
    assert 5.5 < mean <= 6.5
    assert repeated(options, words, tmp_path / "repeated") == made
    convert(replace(options, bits=6.5, jobs=2, out_dir=tmp_path / "again"))
    assert told(caplog) == (mean, words)


def test_the_model_runs_once_to_choose_bits_and_codes(options, tmp_path, caplog, monkeypatch):
    """What inputs are is known to the search then, and is none of its business where there is none."""
    searched = []
    mean_squares = calibrate.mean_squares
    monkeypatch.setattr(calibrate, "mean_squares", lambda *given: searched.append(1) or mean_squares(*given))
    convert(replace(options, bits=6.5))
    assert searched == []
    caplog.clear()
    wide = replace(options, bits=9.0, keep=["model.layers.[01].*=8"], calibrate="auto")
    made = convert(replace(wide, out_dir=tmp_path / "wide")).read_bytes()
    _, words = told(caplog)
    assert repeated(replace(wide, keep=None), words, tmp_path / "repeated") == made


def test_a_file_is_as_large_as_it_may_be(options, tmp_path, caplog):
    least = convert(options).stat().st_size
    most = convert(replace(options, quantize="bf16", calibrate="none", out_dir=tmp_path / "bf16")).stat().st_size
    size = (least + most) // 2
    path = convert(replace(options, size=size, out_dir=tmp_path / "half", lm_head_quantize=4))
    assert size * 3 // 4 < path.stat().st_size <= size
    _, words = told(caplog)
    assert words[:2] == ["--lm_head_quantize", "4"]
    convert(replace(options, size=10 * most, out_dir=tmp_path / "all"))
    mean, words = told(caplog)
    assert mean == 16
    assert len(words) == 2 * 7  # the head has 16 bits without a flag
    with pytest.raises(UserError, match=r"--size: 1,000 bytes are too few: with 4 bits everywhere there are \d"):
        convert(replace(options, size=1000, out_dir=tmp_path / "none"))


def test_what_other_flags_say_stays_and_counts(options, tmp_path, caplog):
    keep = ["model.layers.1.*=16"]
    convert(replace(options, bits=9.0, keep=keep, lm_head_quantize=8))
    mean, words = told(caplog)
    assert words[:2] == ["--lm_head_quantize", "8"]
    assert words[-2:] == ["--keep", keep[0]]
    assert mean <= 9
    with pytest.raises(UserError, match=r"--bits 4: the least is \d\.\d+, with 4 bits for all that --keep leaves"):
        convert(replace(options, bits=4.0, keep=keep))
    with pytest.raises(UserError, match="--bits 4: --keep leaves nothing to choose"):
        convert(replace(options, bits=4.0, keep=["*=4"]))


def test_a_head_that_the_embedding_shares_takes_no_space(tiny_checkpoint, options, tmp_path, caplog, monkeypatch):
    options = replace(options, model_path=tiny_checkpoint("llama", **SIZES, tied=True), bits=4.0)
    monkeypatch.setattr(choose, "measured", lambda *_: {})
    path = convert(options)
    assert told(caplog) == (4.0, ["-q", "alone"])
    blobs = {net.stages[0].coeff.blob.key for net in read_bmodel(path).nets if net.stages[0].coeff}
    convert(replace(options, embedding_disk=True, out_dir=tmp_path / "disk"))
    assert told(caplog) == (4.0, ["--lm_head_quantize", "4"])
    assert len(blobs) == 1 + SIZES["layers"]


def test_weights_that_are_codes_or_wide_are_not_chosen(options):
    for changes, message in (
        ({"quantize": "w8bf16"}, "--bits 5 with -q w8bf16: expected -q w4bf16 or w4f16"),
        ({"as_stored": True}, "--bits 5: the weights of .* are codes already, which stay: leave it out"),
    ):
        with pytest.raises(UserError, match=message):
            check_budget(replace(options, bits=5.0, **changes))
    check_budget(replace(options, quantize="w8bf16"))
