"""A trial of one function says what the final program takes, compiled together with the others."""

from __future__ import annotations

import pytest

from compiler.target.attribute import set_target
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.isa import isa_for
from compiler.target.timing import estimate
from dialects import tensor
from driver.groups import joined
from driver.pipelines import Effort, lowering, placing
from driver.trials import Trials, alone, price_of
from passes.emit_bmodel import encode
from passes.options import ByFunction
from tests.driver.fused import after, groups, trial

EFFORTS = ByFunction.of(
    {
        "block": Effort(tokens=64, tile_bytes=1024, keep=1 << 14, fill=0.5),
        "block_cache": Effort(tile_bytes=1024, fill=0.7),
    }
)


@pytest.mark.parametrize("name", ["block", "block_cache"])
def test_a_trial_has_the_price_of_the_function_in_the_finished_module(name):
    fused = groups()["block_0"].module
    module = after(fused, f"{lowering(EFFORTS)},{placing(EFFORTS)}")
    program = encode(module.function(name))
    wanted = price_of(module.function(name))
    assert wanted.commands == program.tiu_count + program.dma_count - len(("sys", "dma_sys"))
    with Trials(fused, trial).lower(name, EFFORTS[name]) as lowered:
        assert lowered.price(EFFORTS[name]) == wanted


def test_a_price_has_both_estimates():
    function = after(groups()["block_0"].module, f"{lowering(EFFORTS)},{placing(EFFORTS)}").function("block_cache")
    streams, isa = encode(function), isa_for(BM1684X)
    tiu, dma = isa.decode("tiu", streams.tiu), isa.decode("dma", streams.dma)
    both = [estimate(tiu, dma, BM1684X, cautious=cautious).total for cautious in (False, True)]
    price = price_of(function)
    assert [price.plain, price.cautious] == both
    assert both[0] < both[1]


def test_a_function_is_compiled_without_the_others():
    assert [each.sym_name for each in alone(groups()["block_0"].module, "block").functions()] == ["block"]


def test_weights_lie_as_a_lookup_of_them_in_another_function_needs_them():
    """Rows that an embedding reads are not packed in the order of the DMA."""
    tied = joined(groups()["embedding"], groups()["lm_head"]).module
    set_target(tied, BM1684X)
    module = alone(tied, "lm_head")
    assert [each.sym_name for each in module.functions()] == ["lm_head", "embedding_cache"]
    assert module.attributes == tied.attributes
    for source, packed in ((module, 0), (groups()["lm_head"].module, 1)):
        lowered = after(source, "llm-to-tensor,tile-weights")
        ops = lowered.function("lm_head").block.ops
        assert bool(sum(isinstance(op, tensor.PackedWeightOp) for op in ops)) == bool(packed)
    assert [each.sym_name for each in alone(tied, "embedding").functions()] == ["embedding"]
