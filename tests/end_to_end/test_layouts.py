"""Checkpoints of models that see, from their folder to the file: layouts, sizes of pictures, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import read_bmodel
from dialects.weights import stored_bits
from driver.cli import convert_main
from runtime_sim.launch.runtime import Runtime
from tests.compare import compare
from tests.frontend.seeing import INTERNVL, QWEN2_5_VL, Seeing, client_inputs
from tests.vision_layouts import make_original_internvl, make_seeing_checkpoint, old_qwen_key

ROUNDING = 0.9999  # cosine of features in bf16 and in f32


def convert(model: Path, out: Path, *flags: str) -> Path:
    assert convert_main(["-m", str(model), "-s", "64", "-q", "w8bf16", "-g", "32", "-o", str(out), *flags]) == 0
    (path,) = out.glob("*.bmodel")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def internvl(folder):
    return convert(make_seeing_checkpoint(folder / "native" / "model", INTERNVL), folder / "out")


@pytest.fixture(scope="module")
def qwen(folder):
    model = make_seeing_checkpoint(folder / "qwen" / "model", QWEN2_5_VL, old_qwen_key)
    return convert(model, folder / "of_qwen", "--max_pixels", "100,112")


def launched(path: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """The features that the net of a file gives."""
    runtime = Runtime(read_bmodel(path))
    net = runtime.net("vit")
    for buffer, values in zip(net.inputs, inputs, strict=True):
        buffer.array[...] = values
    runtime.launch(net)
    return np.array(net.outputs[0].array, np.float32)


def test_the_original_layout_gives_the_same_file(folder, internvl):
    original = make_original_internvl(folder / "original" / "model", INTERNVL)
    assert convert(original, folder / "of_original").read_bytes() == internvl.read_bytes()


def test_features_of_a_tile_are_those_of_the_model(internvl):
    pixels = np.random.default_rng(1).standard_normal((1, 3, 56, 56), np.float32)
    assert compare(launched(internvl, [pixels]), Seeing.make(INTERNVL).expected(pixels)).cosine > ROUNDING


@pytest.mark.parametrize("grid", [(8, 8), (4, 10)])
def test_features_of_a_grid_are_those_of_the_model(qwen, grid):
    """100 x 112 pixels are rounded to 112 x 112, 64 patches; smaller pictures leave rows."""
    seeing = Seeing.make(QWEN2_5_VL)
    pixels = np.random.default_rng(1).standard_normal((grid[0] * grid[1], 1176), np.float32)
    wanted = seeing.expected(pixels, *grid)
    found = launched(qwen, client_inputs(seeing, pixels, grid, 64))[: len(wanted)]
    assert compare(found, wanted).cosine > ROUNDING


def test_weights_of_towers_stay_16_bit(internvl, qwen):
    """Those of layers are stored in 8 bits, as -q w8bf16 says."""
    for path in (internvl, qwen):
        assert bits_of(path, "vit") == {16}
        assert 8 in bits_of(path, "block_0")


def bits_of(path: Path, net: str) -> set[int | None]:
    coeff = read_bmodel(path).net(net).stages[0].coeff
    assert coeff is not None
    return {stored_bits(part.name) for part in coeff.locations} - {None}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_pixels", "112,112"], "--max_pixels 112,112: the model takes no pictures of any size"),
        (["--num_device", "2"], "--num_device 2: a model that sees"),
        (["--keep", "model.vision_tower.*=8"], "the model has no linear of such a name"),
        (["--max_input_length", "4"], "a picture is up to 4 tokens, and a prompt has room for 4"),
    ],
)
def test_what_a_model_that_sees_is_not_compiled_with(folder, internvl, capsys, flags, message):
    model = folder / "native" / "model"
    assert convert_main(["-m", str(model), "-s", "64", "-q", "bf16", "-o", str(folder / "none"), *flags]) == 2
    assert message in capsys.readouterr().err
