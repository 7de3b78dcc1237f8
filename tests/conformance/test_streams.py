"""Tokens of three positions each, on the vendor's runtime and on the simulator: the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from frontend import importer
from tests.conformance.same import assert_same_on_vendor, random_inputs
from tests.vision import make_vision_checkpoint

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def test_text_of_three_positions_a_token_gives_the_same_bits(tmp_path, monkeypatch, target):
    """Without the tower, in a prefill of two runs of lanes and in a step of decode."""
    monkeypatch.setattr(importer, "tower_groups", lambda *_: [])
    folder = make_vision_checkpoint(tmp_path / "model", "qwen2_5_vl")
    options = ConvertOptions(folder, 128, "bf16", out_dir=tmp_path / "out", max_pixels=(56, 56), **target)
    bmodel = convert(options)
    assert bmodel is not None
    inputs = {net: random_inputs(bmodel, net) for net in ("block_0", "block_cache_0")}
    for net in inputs.values():
        positions = net["position_ids"]
        net["position_ids"] = np.random.default_rng(1).integers(0, 128, positions.shape).astype(positions.dtype)
    assert_same_on_vendor(bmodel, inputs)
