"""What a cache keeps of a model that ran before its weights became codes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from driver.calibration import calibrate
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline

SIZES = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "intermediate": 64, "vocab": 320}


@pytest.fixture(params=["search", "gptq"])
def options(request, tiny_checkpoint, tmp_path, monkeypatch) -> ConvertOptions:
    monkeypatch.setattr(calibrate, "WRITTEN", (16, 8))
    folder = shutil.copytree(tiny_checkpoint("llama", **SIZES), tmp_path / "model")
    given = ConvertOptions(folder, 64, "w4bf16", q_group_size=32, calibrate=request.param, jobs=2)
    given = replace(given, passes=default_pipeline(given), out_dir=tmp_path / "out", cache=tmp_path / "cache")
    return given


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """What runs the model."""
    found: list[str] = []
    for name in ("mean_squares", "run_layers", "written"):

        monkeypatch.setattr(calibrate, name, counted(found, name, getattr(calibrate, name)))
    return found


def counted(found: list[str], name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        found.append(name)
        return run(*given)

    return call


def compiled(options: ConvertOptions) -> bytes:
    data = convert(options).read_bytes()
    shutil.rmtree(options.out_dir)
    return data


def without_cache(options: ConvertOptions) -> bytes:
    return compiled(replace(options, cache=None))


def test_a_model_runs_once_for_compiles_of_the_same_weights(options, runs):
    """Also where what is packed of them was lost, or another length has other programs."""
    plain = without_cache(options)
    assert compiled(options) == plain
    assert len(runs) in (2, 4)
    runs.clear()
    assert compiled(options) == plain
    longer = replace(options, seq_length=128)
    assert compiled(longer) is not None
    assert runs == []


def test_weights_of_another_method_are_not_taken(options):
    """Codes that were chosen before are packed under what they are, not what was there before them."""
    plain = compiled(replace(options, calibrate="none"))
    assert compiled(options) == without_cache(options)
    assert compiled(replace(options, calibrate="none")) == plain


def test_other_weights_run_again(options):
    compiled(options)
    path = options.model_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    tensors["model.layers.0.input_layernorm.weight"] = -tensors["model.layers.0.input_layernorm.weight"]
    save_file(tensors, path, {"format": "pt"})
    assert compiled(options) == without_cache(options)


def test_other_tokens_are_run_anew(options, monkeypatch):
    compiled(options)
    monkeypatch.setattr(calibrate, "RANDOM", 16)
    monkeypatch.setattr(calibrate, "WRITTEN", (16, 7))
    assert compiled(options) == without_cache(options)


def test_what_is_damaged_is_made_again(options, runs):
    plain = compiled(options)
    made = runs.copy()
    runs.clear()
    for path in options.cache.glob("??/*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert compiled(options) == plain
    assert runs == made


def test_other_codes_are_chosen_anew(options):
    compiled(options)
    symmetric = replace(options, symmetric=True, passes=None)
    symmetric = replace(symmetric, passes=default_pipeline(symmetric))
    assert compiled(symmetric) == without_cache(symmetric)
