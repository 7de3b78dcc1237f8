"""Nets of several devices as steps: what each takes and leaves, and that they compute what lockstep does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from compiler.client_nets import ON_FIRST_DEVICE
from compiler.ir.module import walk
from compiler.ir.types import BF16
from compiler.ir.verify import verify
from dialects.nets import net_of
from dialects.parts import Collective
from frontend.imported import ImportedModel
from frontend.importer import import_model
from runtime_sim.interpret.rules import interpret_parts
from tests.architectures.configs import config_of
from tests.passes.llm.parts import after, fused, nets_of, own_inputs, random_inputs, random_weights
from tests.passes.llm.steps import run_steps

ALIKE = ("llama_bias", "qwen2", "qwen3", "phi3", "phi", "gemma3_text", "qwen2_moe", "gpt_oss")


@cache
def model(name: str) -> ImportedModel:
    return import_model(config_of(name), 16, 8, BF16)


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("name", ALIKE)
def test_steps_compute_what_the_parts_do_in_lockstep(name, devices):
    """Bit for bit, as both add up in the same order."""
    for group in model(name).nets:
        parts = after(fused(group.module), f"partition{{devices={devices}}}")
        split = after(parts, "split-steps")
        verify(split)
        assert not [op for op in walk(split) if isinstance(op, Collective)]
        weights = random_weights(parts)
        for together, steps in zip(nets_of(parts), nets_of(split), strict=True):
            inputs = random_inputs(together[0])
            own = [own_inputs(part, inputs) for part in together]
            wanted = interpret_parts(together, own, weights, model(name).tables)
            everywhere = net_of(together[0]).name not in ON_FIRST_DEVICE
            given = own * devices if len(own) == 1 and everywhere else own
            found = run_steps(steps, given, weights, model(name).tables)
            for device, outputs in enumerate(found):
                expected = wanted[min(device, len(wanted) - 1)] if everywhere or device == 0 else []
                assert sorted(outputs) == list(range(len(expected)))
                for index, array in enumerate(expected):
                    np.testing.assert_array_equal(outputs[index], array)


def test_a_block_leaves_its_terms_and_takes_those_of_all():
    group = next(group for group in model("llama_bias").nets if group.name == "block_0")
    split = after(fused(group.module), "partition{devices=2},split-steps")
    nets = {each.sym_name: net_of(each) for each in split.functions()}
    first, second, third = (nets[f"block_cache.device1.step{step}"] for step in range(3))
    kept = [(each.name, each.index, each.hidden) for each in first.inputs]
    assert kept == [
        ("input_states", 0, False), ("position_ids", 1, False), ("attention_mask", 2, False),
        ("history_k", 3, False), ("history_v", 4, False),
    ]  # fmt: skip
    assert [(each.name_on(1), each.index) for each in first.outputs] == [
        ("all_reduce0_0a.1", None), ("k_cache.1", 1), ("v_cache.1", 2),
    ]  # fmt: skip
    assert [each.name_on(1) for each in second.inputs] == ["all_reduce0_0a.0", "all_reduce0_0a.1"]
    assert [each.name_on(1) for each in third.inputs] == ["all_reduce1_0a.0", "all_reduce1_0a.1"]
    assert [(each.name, each.index) for each in third.outputs] == [("output_states", 0)]
    assert all(net.io_alone for net in (first, second, third))
    assert not nets["block.device0.step0"].io_alone


def test_what_is_not_in_a_sum_goes_from_step_to_step():
    """Of Gemma, whose residual is added behind a norm of the sum."""
    group = next(group for group in model("gemma3_text").nets if group.name == "block_0")
    split = after(fused(group.module), "partition{devices=2},split-steps")
    nets = {each.sym_name: net_of(each) for each in split.functions()}
    for step in (1, 2):
        inputs = nets[f"block.device1.step{step}"].inputs
        assert [each.name_on(1) for each in inputs if each.device is None] == [f"kept{step - 1}_0.1"]


def test_the_first_device_embeds_for_all():
    group = model("llama_bias").nets[0]
    split = after(fused(group.module), "partition{devices=3},split-steps")
    nets = [net_of(each) for each in split.functions() if net_of(each).name == "embedding_cache"]
    assert [(net.part.device, net.part.step) for net in nets] == [(0, 0), (1, 1), (2, 1)]
    for net in nets[1:]:
        assert [each.name_on(net.part.device) for each in net.inputs][1:] == [f"{nets[0].outputs[0].name}.0"]
        assert [each.hidden for each in net.inputs] == [False, True]


def test_the_first_device_chooses_for_all():
    group = next(group for group in model("llama_bias").nets if group.name == "lm_head")
    split = after(fused(group.module), "partition{devices=2},split-steps")
    nets = [net_of(each) for each in split.functions()]
    assert [(net.part.device, net.part.step) for net in nets] == [(0, 0), (0, 1), (1, 0)]
    assert [(each.name_on(1), each.hidden) for each in nets[2].inputs] == [("hidden_states.0", True)]
    assert [each.name_on(0) for each in nets[1].inputs] == [
        "all_reduce_argmax0_0a.0", "all_reduce_argmax0_0a.1", "all_reduce_argmax0_0b.0", "all_reduce_argmax0_0b.1",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "steps"), [("qwen2_moe", 3), ("gpt_oss", 3), ("llama_bias", 3)])
def test_devices_meet_at_once_for_all_that_waits_for_nothing_else(name, steps):
    """As for the expert that all tokens have and the chosen ones."""
    group = next(group for group in model(name).nets if group.name == "block_0")
    split = after(fused(group.module), "partition{devices=2},split-steps")
    found = {net_of(each).part.step for each in split.functions() if net_of(each).name == "block"}
    assert found == set(range(steps))
