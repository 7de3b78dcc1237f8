"""Attention in blocks on the vendor's runtime: the bits of the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import Effort, default_pipeline
from passes.options import ByFunction
from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]

MODELS = {  # family, changes to the checkpoint, mode, effort
    "runs and blocks": ("qwen3", {}, "w4bf16", Effort(tokens=64, keys=64)),
    "blocks of two runs": ("qwen2", {"heads": 3, "kv_heads": 1}, "bf16", Effort(tokens=64, keys=128)),
    "runs of two blocks, in f16": ("llama", {"dtype": "float16"}, "f16", Effort(tokens=128, keys=64)),
}


@pytest.fixture
def compiled(tiny_checkpoint, tmp_path, target):
    def make(name):
        family, checkpoint, mode, effort = MODELS[name]
        folder = tiny_checkpoint(family, layers=1, **checkpoint)
        options = ConvertOptions(folder, 200, mode, out_dir=tmp_path / "out", **target)
        return convert(replace(options, passes=default_pipeline(options, ByFunction(effort))))

    return make


@pytest.mark.parametrize("name", MODELS)
def test_every_bit_of_blocks_is_the_same(compiled, name):
    """Runs, a tail that fills no row of lanes, and a history in several blocks; masks with holes."""
    bmodel = compiled(name)
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in ("block_0", "block_cache_0")})


def test_a_session_over_several_runs_gives_the_same_bits(compiled):
    prompt = np.random.default_rng(0).integers(0, 1024, 150).tolist()
    assert_same_session(compiled("runs and blocks"), prompt, 3)
