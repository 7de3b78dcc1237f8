"""A compile that goes on from a dump, edited or not, in the place of a module."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from driver.cli import convert_main

SIZES = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 128, "vocab": 128}


@pytest.fixture(scope="module")
def dumped(tiny_checkpoint, tmp_path_factory) -> Path:
    """A folder with a checkpoint, its bmodel and the dumps of that compile."""
    folder = tmp_path_factory.mktemp("resume")
    shutil.copytree(tiny_checkpoint("qwen2", **SIZES), folder / "model")
    assert convert(folder, "out", "--dump-ir", folder / "ir") == 0
    return folder


def convert(folder: Path, out: str, *flags: object, mode: str = "w4bf16") -> int:
    given = ["-m", folder / "model", "-s", "64", "--chunk_length", "32", "-q", mode, "-o", folder / out, *flags]
    return convert_main([str(flag) for flag in given])


def bytes_of(folder: Path, out: str) -> bytes:
    (path,) = (folder / out).glob("*.bmodel")
    return path.read_bytes()


def edited(folder: Path, dump: str, old: str, new: str, name: str = "") -> Path:
    path = folder / (name or dump)
    text = (folder / "ir" / dump).read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_dumps_as_they_are_give_the_same_file(dumped):
    files = ["block_0.11.fuse-residual", "lm_head.20.hoist-loads", "embedding.23.insert-waits"]
    flags = [flag for file in files for flag in ("--resume-ir", dumped / "ir" / f"{file}.mlir")]
    assert convert(dumped, "same", *flags) == 0
    assert bytes_of(dumped, "same") == bytes_of(dumped, "out")


def test_an_edited_dump_takes_the_place_of_its_module(dumped):
    path = edited(dumped, "block_0.11.fuse-residual.mlir", "eps = 1.0e-06", "eps = 1.0e-03")
    assert convert(dumped, "changed", "--resume-ir", path) == 0
    assert bytes_of(dumped, "changed") != bytes_of(dumped, "out")


def test_a_dump_with_other_stages_is_refused(dumped, capsys):
    flags = ["--chunk_length", "16", "--resume-ir", dumped / "ir" / BLOCK]
    assert convert(dumped, "other", *flags) == 2
    functions = "block, block_cache, block_cache.1"
    assert f"has the functions {functions}, expected {functions}, block_cache.2" in capsys.readouterr().err


@pytest.fixture(scope="module")
def of_two_cores(dumped) -> Path:
    assert convert(dumped, "cores", "-c", "bm1688", "--dump-ir", dumped / "ir_of_cores") == 0
    return dumped


@pytest.mark.parametrize("dump", ["block_0.12.partition", "block_0.20.tensor-to-chip", "block_0.25.insert-waits"])
def test_dumps_of_two_cores_give_the_same_file(of_two_cores, dump):
    path = of_two_cores / "ir_of_cores" / f"{dump}.mlir"
    assert convert(of_two_cores, "cores_again", "-c", "bm1688", "--resume-ir", path) == 0
    assert bytes_of(of_two_cores, "cores_again") == bytes_of(of_two_cores, "cores")


def test_a_dump_that_lacks_a_core_is_refused(of_two_cores, capsys):
    text = (of_two_cores / "ir_of_cores" / "block_0.25.insert-waits.mlir").read_text()
    path = of_two_cores / "block_0.25.mlir"
    path.write_text(text.replace("cores = 2", "cores = 3"))
    assert convert(of_two_cores, "cores_no", "-c", "bm1688", "--resume-ir", path) == 2
    assert "block.core0 is for core 0 of 3" in capsys.readouterr().err


BLOCK = "block_0.11.fuse-residual.mlir"
CHIP = "block_0.18.tensor-to-chip.mlir"
REFUSED = {
    "of no module": (BLOCK, "", "", "block_9.05.mlir", "no module is called block_9; there are embedding"),
    "of another": ("embedding.00.input.mlir", "", "", "block_0.mlir", "has the functions embedding, embedding_cache"),
    "no dump": (BLOCK, "// passes-left", "// left", "", "does not begin with '// passes-left:'"),
    "not to the end": (BLOCK, ",insert-waits", "", "", "leave unordered"),
    "a wrong order": (BLOCK, ",tile-weights", "", "", "leaves whole: run tile-weights first"),
    "of another chip": (BLOCK, '"bm1684x"', '"bm1688"', "", "is for 'bm1688' (bm.target), but -c asks for 'bm1684x'"),
    "of no known chip": (BLOCK, '"bm1684x"', '"bm9"', "", "is for 'bm9' (bm.target), but -c asks for 'bm1684x'"),
    "of another net": (BLOCK, 'kept = "session"', 'kept = "launch"', "", 'needs #bm.net<name = "block_cache"'),
    "of other weights": (BLOCK, "mlp.up_proj.weight", "mlp.upper.weight", "", "there is no parameter mlp.upper.weight"),
    "of other tables": (CHIP, 'sin = "sin">', 'sin = "sin", columns = [5, 128]>', "", "its tables make no column 128"),
    "of other columns": (CHIP, 'sin = "sin">', 'sin = "sin", columns = [5, 127]>', "", "holds 512 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dump_that_does_not_fit_is_refused(dumped, capsys, case):
    dump, old, new, name, message = REFUSED[case]
    path = edited(dumped, dump, old, new, name)
    assert convert(dumped, "refused", "--resume-ir", path) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (dumped / "refused").exists()


def test_a_dump_of_another_type_of_activations_is_refused(dumped, capsys):
    path = dumped / "ir" / BLOCK
    assert convert(dumped, "refused", "--resume-ir", path, mode="w4f16") == 2
    assert "block takes tensor<1x64x128xbf16>" in capsys.readouterr().err
