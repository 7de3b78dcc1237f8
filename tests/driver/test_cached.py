"""Compiles with a cache: the same bytes whatever was in it, and nothing is made twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.diagnostics import UserError
from driver import cache, cached
from driver.blob import Materializer
from driver.convert import convert
from driver.job import Job
from driver.options import ConvertOptions
from driver.pipelines import Effort
from passes.options import ByFunction

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tiny_checkpoint, tmp_path) -> ConvertOptions:
    folder = shutil.copytree(tiny_checkpoint("llama", layers=2), tmp_path / "model")
    return ConvertOptions(folder, 64, "w4bf16", out_dir=tmp_path / "out", jobs=2, cache=tmp_path / "cache")


@pytest.fixture
def plain(options) -> bytes:
    return compiled(replace(options, cache=None))


def compiled(options: ConvertOptions) -> bytes:
    path = convert(options)
    data = path.read_bytes()
    shutil.rmtree(options.out_dir)
    return data


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """What is made in place of taken from a cache."""
    found: list[str] = []
    pieces, module = Materializer.pieces, Job.compiled

    def some_pieces(self, sources):
        found.extend("weights" for source in sources if hasattr(source, "names"))
        return pieces(self, sources)

    def some_module(self, group):
        found.append("program")
        return module(self, group)

    monkeypatch.setattr(Materializer, "pieces", some_pieces)
    monkeypatch.setattr(Job, "compiled", some_module)
    return found


def test_a_repeated_compile_makes_nothing_and_gives_the_same_bytes(options, plain, made):
    assert compiled(options) == plain
    assert {"weights", "program"} == set(made)
    made.clear()
    assert compiled(options) == plain
    assert made == []


def test_another_length_makes_programs_only(options, made):
    """Half as long: the tiles are the same."""
    compiled(options)
    made.clear()
    shorter = replace(options, seq_length=32)
    assert compiled(shorter) == compiled(replace(shorter, cache=None))
    assert "weights" not in made[: made.index("program") + 3]
    made.clear()
    compiled(shorter)
    assert made == []


def test_other_weights_are_made(options):
    compiled(options)
    path = options.model_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = -tensors[name]
    save_file(tensors, path, {"format": "pt"})
    assert compiled(options) == compiled(replace(options, cache=None))


@pytest.mark.parametrize("changes", [{"symmetric": True}, {"quantize": "w8bf16"}, {"calibrate": "search"}, {"chip": "bm1688"}])
def test_other_flags_do_not_find_what_they_change(options, changes):
    compiled(options)
    changed = replace(options, **changes)
    assert compiled(changed) == compiled(replace(changed, cache=None))


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""])
def test_damaged_entries_are_made_again(options, plain, damage):
    compiled(options)
    for path in options.cache.glob("??/*"):
        path.write_bytes(damage(path.read_bytes()))
    assert compiled(options) == plain
    assert compiled(options) == plain


def test_a_full_disk_costs_only_the_cache(options, plain, monkeypatch):
    def write_entry(path, parts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_entry", write_entry)
    assert compiled(options) == plain
    assert [path for path in options.cache.rglob("*") if path.is_file()] == []


def test_a_cache_too_small_for_a_layer_still_serves(options, plain):
    small = replace(options, cache_size=200_000)
    for _ in range(2):
        assert compiled(small) == plain
        assert sum(path.stat().st_size for path in options.cache.glob("??/*")) <= 200_000


def test_two_at_once(options, plain, tmp_path):
    command = [sys.executable, ROOT / "llm_convert.py", "-m", options.model_path, "-s", "64", "-q", "w4bf16", "-j", "2"]
    command += ["--cache", options.cache]
    runs = [subprocess.Popen([*command, "-o", tmp_path / name]) for name in ("one", "two")]
    assert [run.wait() for run in runs] == [0, 0]
    for name in ("one", "two"):
        (path,) = (tmp_path / name).glob("*.bmodel")
        assert path.read_bytes() == plain


def test_another_version_of_the_program_finds_nothing(options, plain, made, monkeypatch):
    compiled(options)
    made.clear()
    monkeypatch.setattr(cached, "made_by", lambda: "another")
    assert compiled(options) == plain
    assert {"weights", "program"} == set(made)


def test_importance_is_part_of_what_weights_are_made_of(options):
    name, weight = "w", np.ones((2, 4), np.float32)
    keys = []
    for importance in (None, np.ones(4, np.float32), np.arange(4, dtype=np.float32)):
        materializer = Materializer(lambda _: weight, {}, importance=lambda _, found=importance: found)
        sources = [cached.Joined((name,), None)]
        keys.append(tuple(cached.CachedWeights(cache.Cache(options.cache, 1)).read_by(sources, materializer)))
    assert len(set(keys)) == 3


def test_a_tensor_is_told_by_type_shape_and_content():
    zeros = np.zeros((2, 4), np.float32)
    others = [zeros, zeros.reshape(4, 2), zeros.view(np.int32), zeros + 1]
    assert len({cached.digest_of(each) for each in others}) == 4


def test_efforts_survive():
    efforts = ByFunction(Effort(tokens=256, fill=0.7), (("block_cache", Effort(keys=64)),))
    assert cached.efforts_of(cached.efforts_as(efforts)) == efforts
    assert cached.efforts_of(cached.efforts_as(None)) is None


def test_a_cache_within_the_checkpoint_is_refused(options):
    with pytest.raises(UserError, match=r"--cache .* writes into the checkpoint"):
        replace(options, cache=options.model_path / "cache")
