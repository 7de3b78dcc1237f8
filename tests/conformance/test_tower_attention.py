"""Attention of towers on the vendor's runtime, on one core and on two: the bits of the simulator."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.target.chips import chip
from driver.pipelines import Effort
from passes.manager import PassManager, parse_pipeline
from tests.conformance.same import assert_same_on_vendor
from tests.conformance.written import write_module
from tests.passes.llm_to_tensor.attending import BetweenLinears, segments

TOKENS, SEGMENTS = 150, [40, 64, 9, 20]  # the rest is padding
FORMS = {
    "a band": ('kind = "band", size = 64', "f32", Effort(64, keys=192)),
    "all keys in blocks": ('kind = "all"', "f32", Effort(64, keys=64)),
    "all keys at once and no mask": ('kind = "all"', "", Effort(64)),
}

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [72, 80])
def test_towers_attend_with_the_same_bits(tmp_path, target, form, width):
    visible, mask, effort = FORMS[form]
    attention = BetweenLinears(TOKENS, 2, 2, width, mask=mask, visible=visible)
    spec = chip(target["chip"])
    module = attention.module(spec)
    cores = target.get("num_core", spec.cores)
    if cores > 1:
        PassManager(parse_pipeline(f"partition{{cores={cores}}}")).run(module)
    weights = {name: each.astype(ml_dtypes.bfloat16) for name, each in attention.weights.items()}
    arrays = attention.inputs(attention.module(), segments(TOKENS, SEGMENTS))
    path = write_module(module, tmp_path / "tower.bmodel", weights, effort=effort)
    assert_same_on_vendor(path, {"test": {f"input_{i}": np.asarray(each) for i, each in enumerate(arrays)}})
