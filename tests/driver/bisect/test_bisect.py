"""A net without mistake: no pass and no op of it parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from driver import bisect
from driver.bisect.dumps import DumpedNet
from tests.driver.bisect.broken import Compiled


@pytest.mark.parametrize("net", ["embedding", "embedding_cache", "block_1", "block_cache_2", "block_cache_2.1", "lm_head"])
def test_a_net_without_mistake_does_not_part(compiled, net):
    report = compiled.report(net)
    assert report[-1] == f"{net} does not part from the reference"
    assert all("cosine 0.9999" in line or "cosine 1.0000" in line for line in report[:-1])


@pytest.mark.parametrize("name", ["block_0", "block_cache_0.1"])
def test_no_op_of_a_net_without_mistake_parts(compiled, name):
    assert list(partings(compiled, name)) == []


# Steps inside of a place have the size of what it computes: the product of a tile of gate and one of up has that
# of the gated whole, and probabilities of 2 heads that of the output of the attention.
MISLEADING = {"intermediate": 2048, "mlp_bias": True, "heads": 2, "kv_heads": 1}


@pytest.mark.parametrize(
    ("family", "mode", "tokens", "sizes"),
    [("qwen2", "f16", 0, {"kv_heads": 4}), ("llama", "w4bf16", 64, MISLEADING)],
)
def test_no_op_parts_where_programs_are_cut(tiny_checkpoint, tmp_path, family, mode, tokens, sizes):
    """Prompts in runs of 64, weights in tiles, values of equal size that are not the same."""
    compiled = Compiled(tiny_checkpoint(family, layers=1, **sizes), tmp_path, mode, tokens)
    assert [*partings(compiled, "block_0"), *partings(compiled, "block_cache_0")] == []


def partings(compiled: Compiled, name: str) -> Iterator[str]:
    """What is said to part in a net that is right."""
    net = DumpedNet.of(compiled.suspects[name], compiled.dumps)
    stages = list(net.stages())
    assert len(stages) > 10
    for before, stage in itertools.pairwise(stages):
        found = bisect.first_op(net, before, stage)
        if found and "only with padding" not in found and stage.pass_name != "quantize-weights":
            yield found
    if found := bisect.first_module(net, stages[0]):
        yield found
    if "first op" in (found := bisect.differs_in_file(net, stages[-1])):
        yield found
