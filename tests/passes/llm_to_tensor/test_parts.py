"""Parts of a net as arrays, run in lockstep: together they compute what the whole net's arrays do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.target.chips import chip
from driver.blob import Materializer
from frontend.imported import ImportedModel
from frontend.importer import import_model
from tests.architectures.configs import config_of
from tests.compare import compare
from tests.passes.llm.parts import AFTER, after, fused, nets_of, random_inputs, random_weights, run_parts

UNEVEN = {
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_size": 576,
    "intermediate_size": 640,
}
MODELS = {
    "llama_bias": {},
    "llama": UNEVEN,
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {},
    "gemma3_text": {},
    "qwen2_moe": {},
    "opt": {"word_embed_proj_dim": 64},  # the head is cut twice: its sum is what one core alone reads
}


@cache
def model(name: str) -> ImportedModel:
    return import_model({**config_of(name), **MODELS[name]}, 96, 80, dtype=BF16)


@pytest.mark.parametrize("options", ["", "{tokens=32 keys=32}"])
@pytest.mark.parametrize("bits", [16, 4])
@pytest.mark.parametrize("name", MODELS)
def test_cores_in_lockstep_compute_what_one_does(name, bits, options):
    """Prefill, decode and the head; sums differ in the order of their terms."""
    for group in model(name).nets:
        whole = after(fused(group.module, chip("bm1688")), f"quantize-weights{{bits={bits} group=32}}")
        weights = random_weights(whole)
        codes = Materializer(weights, {}).codes
        alone = after(whole, f"{AFTER},llm-to-tensor{options}")
        split = after(whole, f"partition{{cores=2}},{AFTER},llm-to-tensor{options}")
        for (function,), parts in zip(nets_of(alone), nets_of(split), strict=True):
            inputs = random_inputs(function)
            wanted = run_parts([function], inputs, weights, model(name).tables, codes)
            found = run_parts(parts, inputs, weights, model(name).tables, codes)
            for ours, theirs in zip(found, wanted, strict=True):
                assert np.isfinite(ours.astype(np.float32)).all()
                assert compare(ours, theirs).cosine > 0.9999
