"""A trial of one function says what the final program takes, compiled together with the others."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from compiler.ir.module import Function, walk
from compiler.ir.types import BF16
from compiler.target.attribute import set_target
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import isa_for
from compiler.target.spec import ChipSpec
from compiler.target.timing import Queues, estimate, measure
from dialects import llm, tensor
from dialects.builtin import ModuleOp
from driver.groups import joined
from driver.pipelines import Effort, lowering, placing
from driver.trials import Trials, alone, cores_of, price_of, structure
from frontend.importer import import_model
from passes.chip import allocate_local
from passes.chip.allocate_local import DoesNotFit, allocate
from passes.emit_bmodel import encode
from passes.options import ByFunction
from tests.architectures.configs import config_of
from tests.driver.fused import after, groups, trial
from tests.helpers import parse_ir
from tests.passes.llm import parts

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


def test_programs_of_one_form_are_those_that_differ_in_nothing_that_counts():
    """All tiles have less than 32 KiB of a lane."""
    forms = []
    small, large = Effort(tile_bytes=1 << 15), Effort(tile_bytes=1 << 16)
    others = replace(small, tile_bytes=1024), replace(small, tokens=64), replace(small, keys=64), replace(small, scores=64)
    for effort in (small, large, *others):
        with Trials(groups()["block_0"].module, trial).lower("block", effort) as lowered:
            forms.append(lowered.form)
    assert forms[0] == forms[1]
    assert len(set(forms)) == 5


CHAIN = """
  %0 = "tensor.load"(%x) : (tensor<64x8xbf16>) -> tensor<64x8xbf16, #tensor.lanes<axis = 0>>
  %1 = "tensor.load"(%y) : (tensor<64x8xbf16>) -> tensor<64x8xbf16, #tensor.lanes<axis = 0>>
  %2 = "tensor.add"(%0, %1) : (tensor<64x8xbf16, #tensor.lanes<axis = 0>>, tensor<64x8xbf16, #tensor.lanes<axis = 0>>)
      -> tensor<64x8xbf16, #tensor.lanes<axis = 0>>
  %3 = "tensor.slice"(%2) <{starts = [0, 0], sizes = [64, 4]}> : (tensor<64x8xbf16, #tensor.lanes<axis = 0>>)
      -> tensor<64x4xbf16, #tensor.lanes<axis = 0>>
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("%2", "%sum", True),
        ("(%0, %1)", "(%1, %0)", False),
        ("(%x)", "(%y)", False),
        ("starts = [0, 0]", "starts = [0, 4]", False),
        ("x8xbf16, #tensor.lanes<axis = 0>", "x8xbf16, #tensor.lanes<axis = 1>", False),
        ("tensor.add", "tensor.mul", False),
    ],
)
def test_the_structure_of_a_program(old, new, same):
    one, args = parse_ir(CHAIN, "one")
    other, _ = parse_ir(CHAIN.replace(old, new), "other", args)
    assert (structure(one) == structure(other)) == same
    assert structure(one) == structure(one.clone())


def test_a_price_has_both_estimates():
    function = after(groups()["block_0"].module, f"{lowering(EFFORTS)},{placing(EFFORTS)}").function("block_cache")
    queues = emitted(function, BM1684X)
    both = [estimate(queues.tiu, queues.dma, BM1684X, cautious=cautious).total for cautious in (False, True)]
    price = price_of(function)
    assert [price.plain, price.cautious] == both
    assert both[0] < both[1]


def emitted(function: Function, spec: ChipSpec) -> Queues:
    streams, isa = encode(function), isa_for(spec)
    return Queues(isa.decode("tiu", streams.tiu)[:-1], isa.decode("dma", streams.dma)[:-1])


@cache
def in_parts() -> ModuleOp:
    """A block on both cores, which have one and two of its heads."""
    three = {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 96, "head_dim": 32}
    model = import_model({**config_of("llama"), **three}, 100, dtype=BF16)
    block = next(group.module for group in model.nets if group.of_layers)
    return after(parts.fused(block, BM1688), f"partition{{cores=2}},{parts.AFTER}")


@pytest.mark.parametrize("name", ["block", "block_cache"])
def test_the_cores_of_a_net_are_priced_together_as_the_finished_file_is(name):
    effort = Effort(fill=0.5)
    module = after(in_parts(), f"{lowering(ByFunction(effort))},{placing(ByFunction(effort))}")
    cores = [emitted(module.function(f"{name}.core{core}"), BM1688) for core in range(2)]
    timing = measure(name, cores, BM1688)
    with Trials(in_parts(), trial).lower(f"{name}.core0", effort) as lowered:
        price = lowered.price(effort)
    assert (price.plain, price.cautious) == (timing.cycles, timing.cycles_cautious)
    assert price.commands == sum(len(core.tiu) + len(core.dma) for core in cores)
    alone = [measure(name, [core], BM1688) for core in cores]
    assert price.plain == max(each.cycles for each in alone)
    assert price.cautious > max(each.cycles_cautious for each in alone)


@pytest.mark.parametrize("tight", [0, 1])
def test_what_does_not_fit_on_some_core_has_no_price(tight, monkeypatch):
    def crowded(function, spec):
        if function.sym_name == f"block.core{tight}":
            raise DoesNotFit(f"core {tight} is full")
        allocate(function, spec)

    monkeypatch.setattr(allocate_local, "allocate", crowded)
    with Trials(in_parts(), trial).lower("block.core0", Effort()) as lowered:
        with pytest.raises(DoesNotFit, match=f"core {tight} is full"):
            lowered.price(Effort())


def test_functions_of_several_cores_go_by_the_name_of_the_first():
    trials = Trials(in_parts(), trial)
    assert [each.sym_name for each in trials.first_cores()] == ["block.core0", "block_cache.core0"]
    assert [each.sym_name for each in cores_of(in_parts(), "block.core0")] == ["block.core0", "block.core1"]


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


def test_weights_of_which_cores_have_parts_lie_as_a_lookup_of_all_needs_them():
    tied = joined(groups()["embedding"], groups()["lm_head"]).module
    set_target(tied, BM1688)
    shared = after(tied, "partition{cores=2}")
    names = ["lm_head.core0", "lm_head.core1", "embedding_cache"]
    assert [each.sym_name for each in alone(shared, names[0]).functions()] == names


@pytest.mark.parametrize("rows", ["", "{0:64:1}"])
def test_weights_of_which_a_device_has_a_part_lie_as_a_lookup_of_all_needs_them(rows):
    tied = joined(groups()["embedding"], groups()["lm_head"]).module.clone()
    for op in walk(tied.function("lm_head")):
        if isinstance(op, llm.WeightOp):
            op.name += rows
    assert [each.sym_name for each in alone(tied, "lm_head").functions()] == ["lm_head", "embedding_cache"]
