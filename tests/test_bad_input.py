"""Whatever is wrong with a checkpoint or a flag: one or two clear lines, exit code 2, nothing written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from driver.cli import convert_main

ROOT = Path(__file__).resolve().parent.parent
Spoil = Callable[[Path], object]


def edit_config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return spoil


UP = "model.layers.0.mlp.up_proj.weight"


def set_value(key: str, value: float) -> Spoil:
    return edit_tensors(lambda tensors: tensors[key].reshape(-1).__setitem__(5, value))


def write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def index(**weight_map: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def nothing(folder: Path) -> None:
    pass


def write_settings(folder: Path) -> None:
    config = folder.parent / "used" / "config"
    config.mkdir(parents=True)
    (config / "settings.yaml").write_text("mine")


class Case(NamedTuple):
    name: str
    spoil: Spoil
    message: str
    flags: str = ""
    lines: int = 2  # of the message, at most


CASES = [
    Case("no folder", shutil.rmtree, "no folder"),
    Case("no config", lambda folder: (folder / "config.json").unlink(), "no config.json in"),
    Case("bad config", write("config.json", "{model_type: llama}"), "config.json:1:2: not valid JSON"),
    Case("unknown type", edit_config(model_type="lamma"), "unknown model_type 'lamma'"),
    Case(
        "remote code",
        edit_config(model_type="new", auto_map={"AutoModel": "code.Model"}),
        "unknown model_type",
    ),
    Case("encoder", edit_config(model_type="vit"), "unknown model_type 'vit'"),
    Case(
        "quantized", edit_config(quantization_config={"quant_method": "hqq"}), "quantized by 'hqq' are not supported"
    ),
    Case("text for a number", edit_config(hidden_size="many"), "config.json"),
    Case("no heads", edit_config(num_attention_heads=0), "config.json"),
    Case("no weights", lambda folder: (folder / "model.safetensors").unlink(), "no weights in"),
    Case("pickle", to_pickle, "has its weights as pickle only (pytorch_model.bin)"),
    Case("truncated", truncate, "model.safetensors is damaged, truncated"),
    Case("git-lfs pointer", write("model.safetensors", "version https://git-lfs"), "not a safetensors file"),
    Case("key missing", edit_tensors(lambda t: t.pop("model.norm.weight")), "model.norm.weight: expected"),
    Case(
        "key extra",
        edit_tensors(lambda t: t.update({"model.layers.0.more": np.ones(3)})),
        "model.layers.0.more: expected no such tensor",
    ),
    Case(
        "wrong shape",
        edit_tensors(lambda t: t.update({"model.norm.weight": np.ones(255, np.float16)})),
        "model.norm.weight: expected shape [256], found [255]",
    ),
    Case("not a number", set_value("model.norm.weight", np.nan), "key model.norm.weight in"),
    Case("in w4", set_value("lm_head.weight", np.inf), "key lm_head.weight in", "-q w4bf16"),
    Case("on disk", set_value("model.embed_tokens.weight", np.nan), "holds nan at", "--embedding_disk"),
    Case("quantized wide", set_value(UP, 1e30), f"{UP} cannot be quantized", "-q w8bf16"),
    Case("layers without end", edit_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    Case("labels of a classifier", edit_config(num_labels=10**9, rms_norm_eps=0), "rms_norm_eps is 0"),
    Case("more layers", edit_config(num_hidden_layers=3), "18 tensors do not fit the model of its config.json", lines=12),
    Case("shard missing", index(a="model-2.safetensors"), "shard model-2.safetensors is missing"),
    Case("key not in shard", index(a="model-1.safetensors"), "key a is not in shard"),
    Case("index leads outside", index(a="../../model.safetensors"), "which is not a file of that folder"),
    Case("no tokens", nothing, "-s 0", "-s 0"),
    Case("too long", nothing, "-s 513 is more than max_position_embeddings 512", "-s 513"),
    Case("prefill too long", nothing, "--max_input_length 65", "--max_input_length 65"),
    Case("chunk too long", nothing, "--chunk_length 33", "--chunk_length 33"),
    Case("group", nothing, "-g 96 does not divide hidden_size = 256", "-q w4bf16 -g 96"),
    Case("chip", nothing, "unknown chip 'bm1680'", "-c bm1680"),
    Case("no pass", nothing, "a comma without a pass", "--passes ,"),
    Case("not lowered", nothing, "--passes leaves llm: add llm-to-tensor", "--passes fuse-qkv"),
    Case("order", nothing, "pass tile-weights takes tensor, whole", "--passes tile-weights"),
    Case("wrong option", nothing, "is '3', expected 4, 8 or 16", "--passes quantize-weights{{bits=3}}"),
    Case("output in checkpoint", nothing, "writes into the checkpoint", "-o {folder}/out"),
    Case("long name", nothing, "File name too long", "-o " + "o" * 300),
    Case("checkpoint in output", nothing, "/model is in the way", "-o {folder}/.."),
    Case(
        "config of the user",
        write_settings,
        "settings.yaml is in the way",
        "-o {folder}/../used",
    ),
    Case(
        "IR of the user",
        lambda folder: (folder.parent / "a.mlir").write_text("mine"),
        "a.mlir is not a dump: give another folder",
        "--dump-ir {folder}/..",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(tiny_checkpoint, tmp_path, capsys, case):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("llama", layers=1), folder)
    case.spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    flags = ["-m", folder, "-s", "64", "-q", "bf16", "-o", tmp_path / "out", *case.flags.split()]
    assert convert_main([str(flag).format(folder=folder) for flag in flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith("note: ")]
    assert errors[0].startswith("error: ")
    assert case.message in errors[0]
    assert len(errors) <= case.lines
    assert sorted(tmp_path.rglob("*")) == before


def test_no_disk_space(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    out = tmp_path / "out"
    folder = tiny_checkpoint("llama", layers=1)
    assert convert_main(["-m", str(folder), "-s", "64", "-q", "bf16", "-o", str(out)]) == 2
    assert "no space for -o" in capsys.readouterr().err
    assert not out.exists()


def run(folder: Path, out: Path, *flags: str) -> int:
    return convert_main(["-m", str(folder), "-s", "64", "-q", "bf16", "-o", str(out), *flags])


def test_a_bmodel_that_does_not_verify_is_not_kept(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    seen = []

    def verify_file(file: Path, *_: object) -> int:
        seen.append((file.name, (file.parent / "config" / "config.json").exists()))
        return 1

    monkeypatch.setattr("runtime_sim.tool.verify.verify_file", verify_file)
    assert run(tiny_checkpoint("llama", layers=1), tmp_path / "out", "--verify") == 1
    assert seen == [("llama_bf16_seq64_bm1684x_1dev_static.bmodel", True)]
    assert "computes something else than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_needs_no_folder_to_write_in(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tiny_checkpoint("llama", layers=1), tmp_path / "file", "--dry_run") == 0
    assert "MB" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_embedding_of_an_earlier_bmodel_stays(tiny_checkpoint, tmp_path):
    folder = tiny_checkpoint("llama", layers=1)
    assert run(folder, tmp_path, "--embedding_disk") == 0
    table = (tmp_path / "config" / "embedding.bin").read_bytes()
    assert run(folder, tmp_path) == 0
    assert (tmp_path / "config" / "embedding.bin").read_bytes() == table


WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
import llm_convert
sys.exit(llm_convert.main())
"""


def test_a_missing_library_is_one_line(tiny_checkpoint, tmp_path):
    flags = ["-m", tiny_checkpoint("llama", layers=1), "-s", "64", "-q", "bf16", "-o", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "torch", *flags], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(r"needs torch .*: pip install torch", done.stderr)
    assert list(tmp_path.iterdir()) == []
