"""Which tokens a model runs on before its weights become codes, and what that changes in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from driver.calibration import calibrate
from driver.calibration.calibrate import calibrated, method_of, rounded, sequences, shape_of_tokens, spread
from driver.calibration.running import Running
from driver.convert import compiled_job, convert
from driver.job import Job
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.layers import Unrunnable
from frontend.load import open_model
from passes import load_all

SIZES = {"layers": 2, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 128, "vocab": 320}


@pytest.fixture
def options(tiny_checkpoint, tmp_path) -> ConvertOptions:
    folder = tiny_checkpoint("llama", **SIZES, tokenizer=True)
    load_all()
    given = ConvertOptions(folder, 64, "w4bf16", calibrate="search", out_dir=tmp_path / "out", jobs=1)
    return replace(given, passes=default_pipeline(given))


def job_of(options: ConvertOptions) -> Job:
    return compiled_job(options, open_model(options.model_path))


def test_what_becomes_codes_is_measured(options, tmp_path):
    job = job_of(options)
    assert {bits for _, bits in rounded(job)} == {4}
    names = {name for name, _ in rounded(job)}
    assert len(names) == 2 * 7
    assert "model.layers.1.mlp.down_proj.weight" in names
    with calibrated(job, open_model(options.model_path), tmp_path):
        assert names <= job.importance.keys()


def test_nothing_runs_where_nothing_becomes_codes(options, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(calibrate, "sequences", None)
    plain = replace(options, quantize="bf16", passes=None)
    unasked = [replace(plain, calibrate="auto"), replace(plain, calibrate="auto", quantize="w8bf16")]
    for given in (*unasked, replace(options, calibrate="none")):
        job = job_of(given)
        with calibrated(job, open_model(given.model_path), tmp_path):
            assert (job.importance, job.weights.made) == ({}, {})
    assert "--cal" not in caplog.text
    for given, flag in (
        (plain, "--calibrate search"),
        (replace(plain, calibrate="auto", calibration_text=Path("text")), "--calibration_text"),
    ):
        assert method_of(job_of(given)) == "none"
        assert f"{flag} changes nothing of {given.model_path}: all weights have 16 bits" in caplog.text


def test_codes_of_4_bits_are_searched_for_unasked(options):
    """And others where somebody asks, be it by a text."""
    unasked = replace(options, calibrate="auto")
    assert method_of(job_of(unasked)) == "search"
    wide = replace(unasked, quantize="w8bf16", passes=None)
    assert method_of(job_of(wide)) == "none"
    assert method_of(job_of(replace(wide, keep=["model.layers.1.*=4"]))) == "search"
    assert method_of(job_of(replace(wide, calibration_text=Path("text")))) == "search"
    assert method_of(job_of(replace(wide, calibrate="gptq"))) == "gptq"


def test_a_model_that_cannot_be_run_is_compiled_unless_somebody_asks_for_more(options, monkeypatch, tmp_path, caplog):
    def run(*given: object) -> None:
        raise Unrunnable("--calibrate: the layers cannot be run")

    monkeypatch.setattr(calibrate, "mean_squares", run)
    with calibrated(job_of(replace(options, calibrate="auto")), open_model(options.model_path), tmp_path):
        pass
    assert "cannot be run, so that codes are chosen as by --calibrate none" in caplog.text
    with pytest.raises(UserError, match="cannot be run"), calibrated(job_of(options), open_model(options.model_path), tmp_path):
        pass


@pytest.mark.parametrize("method", ["search", "gptq"])
def test_the_file_is_another_and_does_not_depend_on_jobs(options, tmp_path, method):
    options = replace(options, calibrate=method)

    def made(**settings: object) -> bytes:
        return convert(replace(options, out_dir=tmp_path / str(settings), **settings)).read_bytes()

    one = made(jobs=1)
    assert one == made(jobs=3)
    plain = made(calibrate="none")
    assert len(plain) == len(one)
    assert plain != one


def running(options: ConvertOptions) -> Running:
    return Running(job_of(options), SimpleNamespace(max_positions=16))


def test_a_text_is_what_the_model_runs_on(options, tmp_path, forked_tokenizers):
    assert sequences(running(options), "search").shape == shape_of_tokens(running(options), "search") == (8, 16)
    assert shape_of_tokens(running(options), "gptq") == (128, 16)
    text = tmp_path / "text"
    text.write_text("some words to read " * 30)
    given = running(replace(options, calibration_text=text))
    found = sequences(given, "search")
    assert found.shape[1] == 16
    assert 2 <= len(found) <= calibrate.TEXT_SEQUENCES["search"]
    assert found.shape == shape_of_tokens(given, "search")
    text.write_text("")
    with pytest.raises(UserError, match=f"--calibration_text {text}: has 0 tokens"):
        sequences(given, "search")


def test_a_gguf_file_has_no_tokenizer_for_a_text(options):
    given = running(options)
    given.job.options = replace(options, model_path=Path("model.gguf"), calibration_text=Path("text"))
    with pytest.raises(UserError, match=r"model\.gguf is a GGUF file"):
        sequences(given, "search")


def test_sequences_are_spread_over_a_long_text():
    assert spread(np.arange(10), 16, 5).tolist() == [[*range(10)]]
    assert spread(np.arange(9), 4, 5).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    found = spread(np.arange(4000), 4, 16)
    assert found.shape == (16, 4)
    assert (found[0, 0], found[-1, -1]) == (0, 3999)
