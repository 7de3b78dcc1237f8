"""Stages of decode on the vendor's runtime: it picks the one whose shapes it is given, in one memory for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler.bmodel import read_bmodel
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.launch.runtime import Runtime
from tests.conformance.same import assert_equal_bits, random_inputs, same_generation
from tests.conformance.vendor_runtime import VendorRuntime

PROMPT = [5, 17, 99, 300, 41, 7, 8, 1000, 23, 77, 512, 640, 3, 91]

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.fixture(scope="module")
def compiled(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, target: dict[str, Any]
) -> Callable[..., Path]:
    def make(family: str, mode: str, **checkpoint: int) -> Path:
        folder, out = tiny_checkpoint(family, **checkpoint), tmp_path_factory.mktemp("compiled") / "out"
        bmodel = convert(ConvertOptions(folder, 64, mode, chunk_length=16, out_dir=out, **target))
        assert bmodel is not None
        return bmodel

    return make


def test_a_conversation_that_grows_out_of_a_stage_gives_the_same_bits(compiled):
    """The simulator's session and the vendor's client choose the stages, each by its own rule."""
    theirs = same_generation(compiled("qwen2", "w4bf16"), PROMPT, 6)
    assert theirs.stages == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("checkpoint", [{}, {"sliding_window": 12, "layers": 1}])
def test_every_stage_gives_the_same_bits_on_noise(compiled, checkpoint):
    bmodel = compiled("mistral" if checkpoint else "qwen3", "bf16", **checkpoint)
    ours = Runtime(read_bmodel(bmodel), exact=True)
    with VendorRuntime(bmodel) as vendor:
        for stage, net in enumerate(ours.stages("block_cache_0")):
            inputs = random_inputs(bmodel, "block_cache_0", stage, stage)
            theirs = vendor.run("block_cache_0", inputs)
            for name, output in ours.run("block_cache_0", inputs).items():
                assert_equal_bits(f"{net.name}.{name}", output, theirs[name])
