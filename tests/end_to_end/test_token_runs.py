"""Prefill in runs of tokens, with weights kept from run to run, computes what prefill of all at once does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.target.spec import ChipSpec
from dialects import tensor
from driver.pipelines import Effort, default_pipeline
from passes.options import ByFunction
from tests.end_to_end.tiny import SUMMING, Tiny, check_close

ONE = {"layers": 1, "heads": 2, "kv_heads": 1}
KEEP = 131072


@pytest.mark.parametrize(
    ("family", "mode", "length", "effort"),
    [
        ("qwen3", "bf16", 128, Effort(tokens=64)),
        ("llama", "w4bf16", 192, Effort(tokens=64)),
        ("llama", "bf16", 128, Effort(keep=KEEP)),  # the last 64 tokens are a run as well
        ("llama", "w4bf16", 192, Effort(tokens=64, keep=KEEP)),
        ("llama", "w4bf16", 192, Effort(tokens=64, keep=1000, fill=0.0)),
    ],
)
def test_runs_of_tokens_change_no_bit(tiny, family, mode, length, effort):
    whole = tiny(family, mode, ONE, {"seq_length": length})
    pipeline = default_pipeline(whole.options, ByFunction(effort))
    cut = tiny(family, mode, ONE, {"seq_length": length, "passes": pipeline})
    net = whole.nets["block_0"]
    inputs = whole.inputs(net)
    for stage in ("tensor", "chip", "file"):
        wanted, found = whole.run(net, stage, inputs), cut.run(cut.nets["block_0"], stage, inputs)
        if stage == "tensor":  # keys of earlier runs are a sum of their own, which numpy rounds
            check_close(net, found, wanted, SUMMING)
        else:
            assert [a.tobytes() for a in found] == [a.tobytes() for a in wanted], stage


@pytest.mark.parametrize("name", ["block_0", "block_cache_0"])
def test_long_rows_of_scores_are_worked_on_in_parts(tiny, tmp_path, monkeypatch, name):
    whole = tiny("llama", "bf16", ONE, {"seq_length": 128})
    monkeypatch.setattr(ChipSpec, "work_bytes", 256)  # 64 scores: half the keys of one head
    parts = Tiny(replace(whole.options, out_dir=tmp_path / "out"))
    powers = [count_of(tensor.SoftmaxWeightsOp, model.nets[name].stages["tensor"]) for model in (whole, parts)]
    assert powers[1] > powers[0]
    net, inputs = parts.nets[name], whole.inputs(whole.nets[name])
    wanted = whole.run(whole.nets[name], "file", inputs)
    for stage in ("tensor", "chip", "file"):
        check_close(net, parts.run(net, stage, inputs), wanted, SUMMING)


@pytest.mark.parametrize(
    ("effort", "linears", "dequantized"),
    [
        (Effort(tokens=64), 3, 3),
        (Effort(tokens=64, keep=KEEP), 3, 1),
        (Effort(keep=KEEP), 2, 1),  # all but the last tokens, and those
    ],
)
def test_kept_weights_are_dequantized_once_for_all_runs(tiny, effort, linears, dequantized):
    whole = tiny("llama", "w4bf16", ONE, {"seq_length": 192})
    pipeline = default_pipeline(whole.options, ByFunction(effort))
    cut = tiny("llama", "w4bf16", ONE, {"seq_length": 192, "passes": pipeline})
    for kind, times in ((tensor.LinearOp, linears), (tensor.DequantizeOp, dequantized)):
        counts = [count_of(kind, model.nets["block_0"].stages["tensor"]) for model in (whole, cut)]
        assert counts[1] == times * counts[0] > 0


def count_of(kind, function) -> int:
    return sum(isinstance(op, kind) for op in function.block.ops)
