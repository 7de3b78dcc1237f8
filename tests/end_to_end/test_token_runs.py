"""Prefill in runs of 64 tokens computes what prefill of all tokens at once does."""

from __future__ import annotations

import pytest

from compiler.pipelines import Effort, default_pipeline


@pytest.mark.parametrize(("family", "mode", "length"), [("qwen3", "bf16", 128), ("llama", "w4bf16", 192)])
def test_runs_of_tokens_change_no_bit(tiny, family, mode, length):
    whole = tiny(family, mode, {}, {"seq_length": length})
    pipeline = default_pipeline(whole.options, Effort(tokens=64))
    cut = tiny(family, mode, {}, {"seq_length": length, "passes": pipeline})
    net = whole.nets["block_1"]
    inputs = whole.inputs(net)
    for stage in ("tensor", "file"):
        wanted, found = whole.run(net, stage, inputs), cut.run(cut.nets["block_1"], stage, inputs)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in wanted], stage
