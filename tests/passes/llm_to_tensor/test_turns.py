"""Runs of sections one after the other, and what stays in local memory between two of them."""

from __future__ import annotations

import pytest

from passes.llm_to_tensor.context import Parameter, Run
from passes.llm_to_tensor.in_sections import token_runs
from passes.llm_to_tensor.sections import Places, Section, sections_of
from passes.llm_to_tensor.turns import set_turns
from passes.ranges import Range
from tests.helpers import as_net, parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

E, H = 64, 2


def linear(y: str, x: str, tokens: int, residual: str = "") -> str:
    type_ = f"tensor<1x{tokens}x{E}xbf16>"
    added, types = (f", %{residual}", f", {type_}") if residual else ("", "")
    return f"""
      %{y}w = "llm.weight"() <{{name = "{y}"}}> : () -> tensor<{E}x{E}xbf16>
      %{y} = "llm.linear"(%{x}, %{y}w{added}) <{{operandSegmentSizes = array<i32: 1, 1, 0, {int(bool(residual))}>}}>
         : ({type_}, tensor<{E}x{E}xbf16>{types}) -> {type_}
    """


def layer(y: str, x: str, tokens: int, visible: str = "all") -> str:
    """x + attention(x), and what it is made of: names that begin with y."""
    type_, heads = f"tensor<1x{tokens}x{E}xbf16>", f"tensor<1x{H}x{tokens}x{E // H}xbf16>"
    split = f"tensor<1x{tokens}x{H}x{E // H}xbf16>"
    parts = "".join(
        linear(f"{y}{name}0", x, tokens)
        + f"""
      %{y}{name}1 = "llm.reshape"(%{y}{name}0) <{{shape = array<i64: 1, {tokens}, {H}, {E // H}>}}> : ({type_}) -> {split}
      %{y}{name} = "llm.permute"(%{y}{name}1) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {heads}
        """
        for name in "qkv"
    )
    return parts + f"""
      %{y}a = "llm.attention"(%{y}q, %{y}k, %{y}v) <{{scale = 0.2 : f64, visible = #llm.visible<kind = "{visible}">,
         operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}> : ({heads}, {heads}, {heads}) -> {split}
      %{y}r = "llm.reshape"(%{y}a) <{{shape = array<i64: 1, {tokens}, {E}>}}> : ({split}) -> {type_}
    """ + linear(y, f"{y}r", tokens, residual=x)


def sections(text: str) -> list[Section]:
    module, _ = parse_ir(text)
    as_net(module)
    (function,) = module.functions()
    found = sections_of(function, Places(function), lambda tokens: len(token_runs(tokens, 64, 0, 64)))
    set_turns(found, lambda tokens: token_runs(tokens, 64, 0, 64))
    return found


def ranges(*bounds: tuple[int, int]) -> list[Range]:
    return [Range(*each) for each in bounds]


def opnames(section: Section) -> set[str]:
    return {value.owner.opname for value in section.handed}


def test_a_section_begins_with_the_tokens_that_the_one_before_ended_with():
    """It is handed queries and the residual, not keys and values, which all runs read."""
    first, second, third = sections(linear("x1", "x", 150) + layer("y", "x1", 150) + layer("z", "y", 150))
    upwards = ranges((0, 64), (64, 128), (128, 150))
    assert [each.runs for each in (first, second, third)] == [upwards, upwards[::-1], upwards]
    assert [len(each.handed) for each in (first, second, third)] == [2, 2, 0]
    assert opnames(first) == opnames(second) == {"llm.linear", "llm.permute"}


def test_tokens_that_only_the_first_section_computes_are_with_its_first_run():
    """Their keys are read, and nothing else of them."""
    last = f"""
      %s = "llm.slice"(%y) <{{axis = 1 : i64, start = 3 : i64, stop = 133 : i64}}> : (tensor<1x133x{E}xbf16>) -> tensor<1x130x{E}xbf16>
      %t = "llm.reshape"(%s) <{{shape = array<i64: 1, 65, {2 * E}>}}> : (tensor<1x130x{E}xbf16>) -> tensor<1x65x{2 * E}xbf16>
      %z = "llm.mul"(%t) <{{value = 2.0 : f64}}> : (tensor<1x65x{2 * E}xbf16>) -> tensor<1x65x{2 * E}xbf16>
    """
    first, second, third = sections(linear("x1", "x", 133) + layer("y", "x1", 133) + last)
    assert first.runs == ranges((0, 67), (67, 131), (131, 133))
    assert second.runs == ranges((131, 133), (67, 131), (3, 67))
    assert third.runs == ranges((0, 64), (64, 65))
    assert first.handed
    assert not second.handed


def test_tokens_that_only_the_first_section_computes_come_first():
    """They are behind all others, so the run with these is like none of the next section."""
    last = f"""
      %s = "llm.slice"(%y) <{{axis = 1 : i64, start = 0 : i64, stop = 128 : i64}}> : (tensor<1x130x{E}xbf16>) -> tensor<1x128x{E}xbf16>
      %t = "llm.reshape"(%s) <{{shape = array<i64: 1, 64, {2 * E}>}}> : (tensor<1x128x{E}xbf16>) -> tensor<1x64x{2 * E}xbf16>
      %z = "llm.mul"(%t) <{{value = 2.0 : f64}}> : (tensor<1x64x{2 * E}xbf16>) -> tensor<1x64x{2 * E}xbf16>
    """
    first, second, third = sections(linear("x1", "x", 130) + layer("y", "x1", 130) + last)
    assert first.runs == ranges((64, 130), (0, 64))
    assert second.runs == ranges((0, 64), (64, 128))
    assert third.runs == ranges((0, 64))
    assert len(first.handed) == 2
    assert {value.owner.opname for value in second.left} == {"llm.linear"}


@pytest.mark.parametrize(("visible", "handed"), [("all", 2), ("causal", 0)])
def test_runs_that_need_those_before_them_come_in_order(visible, handed):
    """The second attention is of the section behind the first."""
    first, second, *_ = sections(linear("x1", "x", 150) + layer("y", "x1", 150) + layer("z", "y", 150, visible))
    assert first.runs == ranges((0, 64), (64, 128), (128, 150))
    assert second.is_ordered == (visible == "causal")
    assert len(first.handed) == handed
    assert second.runs == (first.runs if second.is_ordered else first.runs[::-1])


def test_what_a_later_section_reads_too_is_not_handed_on():
    text = linear("x1", "x", 150) + layer("y", "x1", 150) + layer("z", "y", 150)
    first, *_ = sections(text + linear("u", "z", 150, residual="x1"))
    assert len(first.handed) == 1
    assert opnames(first) == {"llm.permute"}


def test_what_is_handed_on_is_so_in_both_forms():
    """What is added to it is added in f32, whatever else has read it rounded; terms of a sum are not there yet."""
    module, _ = parse_ir('"func.return"(%a, %b, %x, %y) : (tensor<4xbf16>, tensor<4xbf16>, tensor<4xf32>, tensor<4xbf16>) -> ()')
    (function,) = module.functions()
    a, b, wide, half = function.args
    before, after = Run(Range(0, 4)), Run(Range(0, 4))
    before.values |= {a: wide, b: Parameter(("b",), (4,))}
    before.halves[a] = half
    after.receive(before, {a, b})
    assert (after.values, after.halves, after.received_values) == ({a: wide}, {a: half}, {a})


def test_what_is_handed_on_is_neither_stored_nor_loaded():
    """Of three runs, one has two values of four for the next section; the last section has three results."""
    text = linear("x1", "x", 150) + layer("y", "x1", 150) + layer("z", "y", 150)
    names = ["x1", "y", "z", *(f"{y}{name}0" for y in "yz" for name in "qkv")]
    weights = {name: random_tensor(E, E, seed=i, scale=E**-0.5).astype("bfloat16") for i, name in enumerate(names)}
    inputs = [random_tensor(1, 150, E).astype("bfloat16")]
    module = check_levels(text, inputs, weights=weights, options="{tokens=64}", cosine=0.9999)
    opnames = [op.opname for op in module.functions()[0].block.ops]
    assert opnames.count("tensor.store") == 2 * (3 * 4 - 2) + 3
