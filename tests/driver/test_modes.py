"""What -q and -g come to for checkpoints of floats and of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.diagnostics import UserError
from driver.modes import resolved
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from frontend.sources.form import Form

AWQ = Form("f16", (4,), (128,))
MIXED = Form("bf16", (4, 8), (128, 32))


def options(**changes: Any) -> ConvertOptions:
    return ConvertOptions(Path("model"), 64, **{"out_dir": Path("out")} | changes)


@pytest.mark.parametrize(
    ("form", "flags", "mode", "group"),
    [
        (Form("bf16"), {}, "bf16", 64),
        (Form("f16"), {}, "f16", 64),
        (Form("f16"), {"quantize": "w4bf16"}, "w4bf16", 64),
        (Form("f16"), {"quantize": "w4f16", "q_group_size": 32}, "w4f16", 32),
        (AWQ, {}, "w4f16", 128),
        (AWQ, {"quantize": "w4bf16"}, "w4bf16", 128),
        (AWQ, {"q_group_size": 128}, "w4f16", 128),
        (MIXED, {}, "w4bf16", 128),
        (MIXED, {"quantize": "w8f16", "q_group_size": 32}, "w8f16", 128),
    ],
)
def test_a_mode_and_a_group(form, flags, mode, group):
    found = resolved(options(**flags), form)
    assert (found.quantize, found.group, found.as_stored) == (mode, group, bool(form.bits))


@pytest.mark.parametrize(
    ("form", "flags", "message"),
    [
        (AWQ, {"quantize": "w8bf16"}, "-q w8bf16: the weights of model are codes already, of 4 bits\ngive -q w4bf16, or leave it out"),
        (AWQ, {"quantize": "f16"}, "-q f16: .* of 4 bits\ngive -q w4f16, or"),
        (MIXED, {"quantize": "bf16"}, "-q bf16: .* of 4 and 8 bits\ngive -q w4bf16 or -q w8bf16, or"),
        (AWQ, {"q_group_size": 64}, "-g 64: .* in groups of 128\ngive -g 128, or leave it out"),
        (AWQ, {"symmetric": True}, "--symmetric: .* with zero points or without as they are\nleave it out"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused(form, flags, message):
    with pytest.raises(UserError, match=message):
        resolved(options(**flags), form)


def test_weights_that_are_codes_or_were_left_in_16_bits_stay_so():
    assert "quantize-weights" not in default_pipeline(resolved(options(), AWQ))
    assert "quantize-weights{bits=4" in default_pipeline(resolved(options(quantize="w4f16"), Form("f16")))
    keep = {"lm_head": 8}
    assert "quantize-weights{bits=16 group=128 symmetric=false keep=lm_head=8}" in default_pipeline(
        resolved(options(), AWQ), keep=keep
    )
