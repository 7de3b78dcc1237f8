"""Nets in parts: what each part holds, and that together they compute what the whole net does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.ir.module import walk
from compiler.ir.types import BF16, F32, ElementType
from compiler.ir.verify import verify
from dialects import llm
from dialects.nets import NetPart, net_of
from frontend.imported import ImportedModel
from frontend.importer import import_model
from runtime_sim.interpret.rules import interpret
from tests.architectures.configs import config_of
from tests.helpers import check_pass, parse_ir
from tests.passes.llm.parts import AFTER, after, check_parts, fused, random_weights, run_parts
from tests.passes.llm_to_tensor.attending import BetweenLinears, segments

X, W = "tensor<1x8x64xbf16>", "tensor<256x64xbf16>"
LOOSE = 2e-6

# ---- before and after ----


def net(*, part: str = "", outputs: str = '#bm.output<name = "y", tokens = 1>') -> str:
    return (
        f'{{bm.net = #bm.net<name = "f", inputs = [#bm.input<name = "x", tokens = 1>], outputs = [{outputs}]'
        f"{part and f', part = #bm.part<{part}>'}>}}"
    )


def function(body: str, name: str = "f", attributes: str = "", result: str = X) -> str:
    return f"""
      "func.func"() <{{sym_name = "{name}", function_type = ({X}) -> {result}}}> ({{
      ^bb0(%x: {X}):
        {body}
      }}) {attributes or net()} : () -> ()
    """


def module(*functions: str) -> str:
    return f'"builtin.module"() ({{ {"".join(functions)} }}) : () -> ()'


def weight(name: str, type: str) -> str:
    return f'%{name} = "llm.weight"() <{{name = "{name}"}}> : () -> {type}'


def linear(result: str, x: str, w: str, types: str, residual: str = "", partial: str = "") -> str:
    sizes = f"1, 1, 0, {int(bool(residual))}"
    return (
        f'%{result} = "llm.linear"(%{x}, %{w}{residual and f", %{residual}"}) '
        f"<{{{partial}operandSegmentSizes = array<i32: {sizes}>}}> : {types}"
    )


INNER, DOWN = "tensor<1x8x256xbf16>", "tensor<64x256xbf16>"
HALF, UP_PART, DOWN_PART = "tensor<1x8x128xbf16>", "tensor<128x64xbf16>", "tensor<64x128xbf16>"
MLP = f"""
    {weight("up", W)}
    {linear("u", "x", "up", f"({X}, {W}) -> {INNER}")}
    %a = "llm.act"(%u) <{{kind = "gelu"}}> : ({INNER}) -> {INNER}
    {weight("down", DOWN)}
    {linear("y", "a", "down", f"({INNER}, {DOWN}, {X}) -> {X}", "x")}
    "func.return"(%y) : ({X}) -> ()
"""


def mlp_part(start: int, number: int, over: str, returned: str) -> str:
    cut = f"start = {start} : i64, stop = {start + 128} : i64"
    term = f"({HALF}, {DOWN_PART}{'' if number else f', {X}'}) -> tensor<1x8x64xf32>"
    return f"""
    {weight("up", W)}
    %up_part = "llm.slice_weights"(%up) <{{{cut}}}> : ({W}) -> {UP_PART}
    {linear("u", "x", "up_part", f"({X}, {UP_PART}) -> {HALF}")}
    %a = "llm.act"(%u) <{{kind = "gelu"}}> : ({HALF}) -> {HALF}
    {weight("down", DOWN)}
    %down_part = "llm.slice_weights"(%down) <{{{cut}, axis = 1 : i64}}> : ({DOWN}) -> {DOWN_PART}
    {linear("t", "a", "down_part", term, "" if number else "x", "partial = true, ")}
    %y = "llm.all_reduce"(%t) <{{over = "{over}"}}> : (tensor<1x8x64xf32>) -> {X}
    {returned}
    """


def test_devices_have_columns_of_a_block_and_add_up_its_results():
    returned = f'"func.return"(%y) : ({X}) -> ()'
    check_pass(
        "partition{devices=2}",
        before=module(function(MLP)),
        after=module(
            function(mlp_part(0, 0, "device", returned), "f.device0", net(part="devices = 2")),
            function(mlp_part(128, 1, "device", returned), "f.device1", net(part="device = 1, devices = 2")),
        ),
    )


def test_the_first_core_writes_what_is_too_narrow_to_be_shared_out():
    check_pass(
        "partition{cores=2}",
        before=module(function(MLP)),
        after=module(
            function(mlp_part(0, 0, "core", f'"func.return"(%y) : ({X}) -> ()'), "f.core0", net(part="cores = 2")),
            function(
                mlp_part(128, 1, "core", '"func.return"() : () -> ()'),
                "f.core1",
                net(part="core = 1, cores = 2, writes = []"),
                "()",
            ),
        ),
    )


NORM = f"""
    %n = "llm.rms_norm"(%x) <{{eps = 1.0e-6 : f64}}> : ({X}) -> {X}
    "func.return"(%n) : ({X}) -> ()
"""


def test_a_net_without_blocks_is_that_of_the_first_device_and_needs_one_core():
    check_pass("partition{cores=2}", before=module(function(NORM)), after=module(function(NORM)))
    check_pass(
        "partition{devices=2}",
        before=module(function(NORM)),
        after=module(function(NORM, "f.device0", net(part="devices = 2"))),
    )


def test_what_lies_between_two_linears_must_work_item_by_item():
    """A norm needs all of its row: so it, and both linears, stay whole."""
    through_norm = MLP.replace('"llm.act"(%u) <{kind = "gelu"}>', '"llm.rms_norm"(%u) <{eps = 1.0e-6 : f64}>')
    whole = module(function(through_norm))
    check_pass("partition{cores=2}", before=whole, after=whole)


def test_a_linear_of_a_sum_is_that_of_every_part():
    """Nobody has a share of its inputs: all have them whole."""
    again = MLP.replace('"func.return"(%y)', linear("z", "y", "w", f"({X}, tensor<64x64xbf16>) -> {X}") + '"func.return"(%z)')
    whole, _ = parse_ir(module(function(weight("w", "tensor<64x64xbf16>") + again)))
    split = after(whole, "partition{devices=2}")
    assert [[op.partial for op in ops] for ops in held(split, llm.LinearOp)] == [[False, True, False]] * 2


def test_one_part_is_the_whole():
    check_pass("partition{cores=1 devices=1}", before=module(function(MLP)), after=module(function(MLP)))


# ---- who has what ----


@cache
def model(name: str, dtype: ElementType = F32, **settings: int) -> ImportedModel:
    return import_model({**config_of(name), **settings}, 24, 16, dtype=dtype)


def blocks(model: ImportedModel):
    return fused(next(group.module for group in model.nets if group.of_layers))


def held(module, op_class: type) -> list:
    return [[op for op in function.block.ops if isinstance(op, op_class)] for function in module.functions()]


def uneven(columns: int = 64) -> ImportedModel:
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 16}
    return model("llama", **heads, hidden_size=144, intermediate_size=columns)


def test_nine_query_heads_of_three_kv_heads_over_two_cores():
    """Columns cannot make up for more heads: there are those of one row of lanes."""
    split = after(blocks(uneven()), "partition{cores=2}")
    for first, second in zip(*[iter(held(split, llm.AttentionOp))] * 2, strict=True):
        assert [first[0].heads_of, second[0].heads_of] == [(3, 2), (1, 3)]
    gathers = [op for ops in held(split, llm.AllGatherOp) for op in ops]
    assert {op.sizes for op in gathers if op.y.type.rank == 4} == {(1, 2)}


def test_keys_and_values_are_given_before_any_sum():
    """What follows a sum then reads nothing of before it, and all runs of tokens may go up to it first."""
    for function in after(blocks(model("llama")), "partition{cores=2}").functions():
        kinds = [type(op) for op in function.block.ops if isinstance(op, llm.AllGatherOp | llm.AllReduceOp)]
        assert kinds == [llm.AllGatherOp] * 2 + [llm.AllReduceOp] * 2 + [llm.AllGatherOp]


def test_no_kv_head_is_read_by_two_where_columns_make_up_for_more_heads():
    """Six and three query heads; products of columns are 3 of each."""
    split = after(blocks(uneven(384)), "partition{cores=2}")
    attentions = held(split, llm.AttentionOp)
    assert [[op.heads_of for op in ops] for ops in attentions] == 2 * [[(3, 3)], [(3,)]]
    gathers = [op for ops in held(split, llm.AllGatherOp) for op in ops]
    assert {op.sizes for op in gathers if op.y.type.rank == 4} == {(2, 1)}
    columns = [op.x.type.shape[-1] for ops in held(split, llm.LinearOp) for op in ops if op.partial]
    assert columns == 2 * [6 * 16, 128, 3 * 16, 256]


def test_who_has_fewer_heads_has_more_columns():
    """Products of heads and of columns are as even as whole rows of lanes allow."""
    heads = {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 128}
    whole = blocks(model("llama", **heads, hidden_size=192, intermediate_size=1024))
    linears = held(after(whole, "partition{cores=2}"), llm.LinearOp)
    columns = [op.x.type.shape[-1] for ops in linears for op in ops if op.partial]
    assert columns == 2 * [2 * 128, 384, 1 * 128, 640]


@pytest.mark.parametrize(("name", "meetings"), [("llama", 2), ("phi", 1), ("qwen2_moe", 3)])
def test_blocks_side_by_side_are_one_sum(name, meetings):
    """An attention and the columns beside it are added up together, and those behind it by themselves."""
    sums = held(after(blocks(model(name)), "partition{cores=2}"), llm.AllReduceOp)
    assert [len(ops) for ops in sums] == [meetings] * len(sums)


def test_a_kv_head_that_all_cores_read_is_written_by_one():
    split = after(blocks(model("llama", num_key_value_heads=1)), "partition{cores=2}")
    first, second, *_ = split.functions()
    assert net_of(first).part == NetPart(core=0, cores=2, writes=(0,))
    assert net_of(second).part == NetPart(core=1, cores=2)


def test_devices_of_other_numbers_of_heads_are_refused():
    with pytest.raises(CompileError, match="has 9 query and 3 KV heads, which do not divide among 2 devices"):
        after(blocks(uneven()), "partition{devices=2}")


def test_devices_have_their_own_heads_of_the_cache():
    split = after(blocks(model("llama")), "partition{devices=2}")
    cached = next(function for function in split.functions() if net_of(function).name == "block_cache")
    assert [arg.type.shape for arg in cached.args[3:]] == [(1, 24, 1, 32)] * 2
    assert [value.type.shape for value in cached.terminator.operands] == [(1, 1, 128), (1, 1, 1, 32), (1, 1, 1, 32)]


def test_groups_of_codes_are_never_split():
    """Two heads of 32 share a group of 64, and columns come in such groups; three cores have too few."""
    whole = after(blocks(model("llama", BF16)), "quantize-weights{group=64}")
    split = after(whole, "partition{cores=2}")
    cuts = [(op.start, op.stop) for ops in held(split, llm.SliceWeightsOp) for op in ops if op.axis == 1]
    assert set(cuts) == {(0, 64), (64, 128), (0, 128), (128, 192)}
    attentions = held(after(whole, "partition{cores=3}"), llm.AttentionOp)
    assert {op.q.type.shape[1] for ops in attentions for op in ops} == {4}


# ---- together they are the whole ----

ALIKE = ("llama_bias", "qwen2", "qwen3", "phi3", "phi", "gemma3_text", "qwen2_moe", "gpt_oss", "minicpm3")


@pytest.mark.parametrize("parts", ["cores=2", "cores=3", "devices=2", "devices=4"])
@pytest.mark.parametrize("name", ALIKE)
def test_parts_in_lockstep_compute_what_the_whole_does(name, parts):
    for group in model(name).nets:
        whole = fused(group.module)
        split = after(whole, f"partition{{{parts}}}")
        verify(split)
        check_parts(whole, after(split, AFTER), model(name), LOOSE)


@pytest.mark.parametrize("visible", ['kind = "all"', 'kind = "band", size = 8'])
@pytest.mark.parametrize("mask", ["f32", ""])
@pytest.mark.parametrize("heads", [4, 3])
def test_queries_that_see_later_keys_are_shared_out_by_heads(visible, mask, heads):
    """As of a tower, with a mask in f32 or none."""
    attention = BetweenLinears(24, heads, heads, 20, mask=mask, visible=visible, element="f32")
    whole = after(attention.module(), "canonicalize")
    parts = after(whole, "partition{cores=2},canonicalize").functions()
    shown = segments(24, [8, 5, 7, 4])
    inputs = attention.inputs(attention.module(), shown)
    (wanted,) = interpret(whole.functions()[0], inputs, attention.weights.__getitem__, {})
    (found,) = run_parts(parts, inputs, attention.weights.__getitem__, {})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    held = [op.q.type.shape[1] for part in parts for op in walk(part) if isinstance(op, llm.AttentionOp)]
    assert sorted(held) == [heads // 2, heads - heads // 2]


def test_heads_that_do_not_divide():
    for imported in (uneven(), uneven(384)):
        for group in imported.nets:
            whole = fused(group.module)
            for cores in (2, 3, 4):
                check_parts(whole, after(whole, f"partition{{cores={cores}}}"), imported, LOOSE)


@pytest.mark.parametrize("parts", ["cores=2", "cores=4", "devices=2", "devices=4"])
def test_one_kv_head_is_on_all_parts(parts):
    for group in model("llama", num_key_value_heads=1).nets:
        whole = fused(group.module)
        check_parts(whole, after(whole, f"partition{{{parts}}}"), model("llama", num_key_value_heads=1), LOOSE)


def test_logits_are_those_of_all_parts():
    text = module(
        function(
            f"""{weight("up", W)}
            {linear("u", "x", "up", f"({X}, {W}) -> {INNER}")}
            %y = "llm.widen"(%u) : ({INNER}) -> tensor<1x8x256xf32>
            "func.return"(%y) : (tensor<1x8x256xf32>) -> ()""",
            result="tensor<1x8x256xf32>",
        )
    )
    whole, _ = parse_ir(text)
    for parts in ("cores=2", "devices=3"):
        split = after(whole, f"partition{{{parts}}}")
        assert all(op.y.type.shape[-1] < 256 for op in walk(split) if isinstance(op, llm.LinearOp))
        check_parts(whole, split, model("llama"))


def test_of_equal_logits_the_first_is_chosen_whoever_has_it():
    head = next(group for group in model("llama").nets if group.name == "lm_head")
    whole = fused(head.module)
    split = after(whole, "partition{cores=3}")
    (name,) = {op.name for op in walk(whole) if isinstance(op, llm.WeightOp) and op.y.type.shape[0] == 512}
    read = random_weights(whole)
    for rows, first in (([400, 5, 200], 5), ([500, 300], 300), ([511], 511)):
        weights = read(name).copy()
        weights[rows] = 9
        inputs = [np.ones((1, 128), np.float32)]
        found = run_parts(split.functions(), inputs, lambda n, w=weights: w if n == name else read(n), {})
        assert found[0].tolist() == [[first]]
