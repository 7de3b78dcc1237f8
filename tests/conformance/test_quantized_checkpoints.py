"""Checkpoints that are quantized already, on the vendor's runtime and on the simulator."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests import packers
from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs
from tests.packers import AUTO_ROUND, AWQ, GPTQ, compressed_config, quantize_checkpoint

SMALL = {"layers": 2, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 512}
PROMPT = [5, 17, 99, 300, 41]
TOKENS = 4

CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # packer, settings, options of the linears
    "awq": (packers.awq, AWQ, {}),
    "gptq": (packers.gptq, GPTQ, {"symmetric": True}),
    "gptq, inputs in an order": (packers.gptq, GPTQ | {"desc_act": True}, {"shuffled": True}),
    "gptq 8 bits": (packers.gptq_v2, GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2"}, {"bits": 8}),
    "auto-round": (packers.gptq, AUTO_ROUND, {"group": 64}),
    "compressed": (packers.compressed, compressed_config(symmetric=False), {}),
    "compressed 8 bits": (
        partial(packers.compressed, zeros=False),
        compressed_config(bits=8),
        {"bits": 8, "symmetric": True},
    ),
}

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize("name", CASES)
def test_a_session_gives_the_same_bits_and_tokens(tiny_checkpoint, tmp_path, target, name):
    pack, settings, options = CASES[name]
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint("llama", **SMALL, dtype="float16"), folder)
    quantize_checkpoint(folder, pack, settings, **options)
    bmodel = convert(ConvertOptions(folder, 64, out_dir=tmp_path / "out", **target))
    assert_same_session(bmodel, PROMPT, TOKENS)
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in ("block_0", "block_cache_1")})
