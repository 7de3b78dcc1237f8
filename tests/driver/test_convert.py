"""What a run does besides writing a bmodel: the embedding on disk, the dry run, stopping early, verifying."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from compiler.bmodel.memory import device_memory
from compiler.diagnostics import CompileError
from driver import convert as stages
from driver import write
from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.binding import Weights
from frontend.checkpoint import Checkpoint
from tests.checkpoints import LONGROPE

SIZES = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 128, "vocab": 320}
NETS = ["embedding", "embedding_cache", "lm_head", "block_0", "block_cache_0"]


@pytest.fixture
def options(tiny_checkpoint, tmp_path) -> ConvertOptions:
    """A model of one layer, compiled without a search for the fastest program."""
    given = ConvertOptions(tiny_checkpoint("llama", **SIZES), 64, "bf16", out_dir=tmp_path / "out", jobs=1)
    return replace(given, passes=default_pipeline(given))


def nets(path: Path) -> list[str]:
    return [net.name for net in read_bmodel(path).nets]


def test_nets_of_a_file_stand_in_the_order_of_the_model(options):
    assert nets(convert(options)) == NETS


def test_an_embedding_on_disk_is_the_table_and_the_file_knows_it(options, monkeypatch):
    monkeypatch.setattr(write, "EMBEDDING_ROWS", 100)  # several pieces, the last one shorter
    path = convert(replace(options, embedding_disk=True))
    table = (path.parent / "config" / "embedding.bin").read_bytes()
    stored = Checkpoint(options.model_path)["model.embed_tokens.weight"].read()
    rows = np.frombuffer(table, ml_dtypes.bfloat16).reshape(320, 128)
    np.testing.assert_array_equal(rows, stored.astype(ml_dtypes.bfloat16))
    assert nets(path) == NETS[2:]
    assert read_bmodel(path).embedding_sha256 == hashlib.sha256(table).hexdigest()


def test_a_dry_run_tells_what_the_file_would_take_and_writes_nothing(options, capsys):
    assert convert(replace(options, dry_run=True)) is None
    assert not options.out_dir.exists()
    told = capsys.readouterr().out
    path = convert(options)
    assert f"\nfile: {path.stat().st_size:,} bytes\n" in told
    assert f"\ndevice memory: {device_memory(read_bmodel(path)).total:,} bytes" in told
    assert "tokens" in told


def test_a_dry_run_tells_what_choosing_codes_takes(options, capsys):
    coded = replace(options, dry_run=True, quantize="w4bf16", passes=None)
    for method in ("none", "search", "gptq"):
        convert(replace(coded, calibrate=method))
        assert (" to choose codes, " in capsys.readouterr().out) == (method != "none")


@pytest.mark.parametrize("changes", [{"embedding_disk": True}, {"quantize": "w4bf16"}])
def test_a_dry_run_reads_no_weight(options, capsys, monkeypatch, changes):
    monkeypatch.setattr(Weights, "read", lambda *_: pytest.fail("a weight was read"))
    given = replace(options, passes=None, dry_run=True, **changes)
    convert(replace(given, passes=default_pipeline(given)))
    monkeypatch.undo()
    told = capsys.readouterr().out
    path = convert(replace(given, passes=default_pipeline(given), dry_run=False))
    assert f"\nfile: {path.stat().st_size:,} bytes\n" in told


@pytest.mark.parametrize("last", ["recognize-rope", "llm-to-tensor"])
def test_a_run_that_stops_early_leaves_dumps_alone(options, tmp_path, last):
    assert convert(replace(options, stop_after=last, dump_ir=tmp_path / "ir")) is None
    assert not options.out_dir.exists()
    modules = {path.name.split(".")[0] for path in (tmp_path / "ir").glob("*.mlir")}
    assert modules == {"embedding", "lm_head", "block_0"}
    newest = max((tmp_path / "ir").glob("block_0.*"))
    assert newest.name.split(".")[2] == last
    assert newest.read_text().startswith("// passes-left: ")


def test_a_file_that_computes_what_the_model_does_is_kept(options, capsys):
    path = convert(replace(options, verify=True))
    assert nets(path) == NETS
    assert "computes what" in capsys.readouterr().out


def test_a_file_that_computes_something_else_is_not_kept(options, tiny_checkpoint, monkeypatch):
    """It is held against another checkpoint of the same sizes."""
    other = tiny_checkpoint("llama", **SIZES, seed=7)
    verify = stages.verify
    monkeypatch.setattr(stages, "verify", lambda path, given: verify(path, replace(given, model_path=other)))
    with pytest.raises(CompileError, match=r"computes something else than .*: nothing was written"):
        convert(replace(options, verify=True))
    assert not list(options.out_dir.parent.rglob("*.bmodel"))


@pytest.mark.parametrize(
    "place", [{"rope_scaling": LONGROPE}, {"rope_parameters": LONGROPE | {"rope_theta": 1e4}}]
)
def test_a_length_that_has_other_rotary_factors_is_noted(options, tiny_checkpoint, caplog, place):
    """Where they stay as they are, nothing is said."""
    folder = tiny_checkpoint("llama", **SIZES, **place)
    for length in (40, 41):
        convert(replace(options, model_path=folder, seq_length=length, stop_after="canonicalize"))
        told = [line for line in caplog.messages if "long_factor" in line]
        assert len(told) == (length > 40)
    assert "-s 41 is more than original_max_position_embeddings 40: all tokens turn by long_factor" in told[0]
    assert "-s 40 is closer" in told[0]
