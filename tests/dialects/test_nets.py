"""What a function says that it is: kept by the text, held against its types, and read from nothing else."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.printer import print_module
from compiler.ir.types import F32, FunctionType, TensorType
from compiler.ir.verify import verify
from dialects.nets import (
    NetAttr,
    NetInput,
    NetOutput,
    NetPart,
    has_memory_of_its_own,
    net_of,
    programs_of,
    stages_of,
    token_count,
)
from tests.helpers import parse_ir

X, MASK = "tensor<1x8x16xbf16>", "tensor<1x1x8x8xbf16>"
INPUTS = '#bm.input<name = "x", tokens = 1>, #bm.input<name = "mask", tokens = 2, kept = "run">'
OUTPUTS = '#bm.output<name = "y", tokens = 1>'
NET = f'#bm.net<name = "block", bound = "layer", inputs = [{INPUTS}], outputs = [{OUTPUTS}]>'
STAGE = f"{NET[:-1]}, stage = 1>"


def function(net: str = NET, name: str = "f", x: str = X) -> str:
    return f"""
      "func.func"() <{{sym_name = "{name}", function_type = ({x}, {MASK}) -> {x}}}> ({{
      ^bb0(%x: {x}, %mask: {MASK}):
        "func.return"(%x) : ({x}) -> ()
      }}) {{bm.net = {net}}} : () -> ()
    """


def module_of(*functions: str):
    module, _ = parse_ir('"builtin.module"() ({' + "".join(functions) + "}) : () -> ()")
    return module


def test_it_is_part_of_the_text_and_is_verified():
    module = module_of(function())
    verify(module)
    again, _ = parse_ir(print_module(module))
    (f,) = again.functions()
    assert net_of(f) == NetAttr(
        "block",
        "layer",
        inputs=(NetInput("x", 1), NetInput("mask", 2, "run")),
        outputs=(NetOutput("y", 1),),
    )
    assert token_count(f) == 8
    assert not has_memory_of_its_own(f)


WRONG = {
    "an argument too few": (INPUTS, INPUTS.partition(", #")[0], r"1 results, its bm\.net names 1 and 1"),
    "no such axis": ("tokens = 1>, #", "tokens = 3>, #", r"tokens of 'x' on axis 3, which tensor<1x8x16xbf16> has not"),
    "an axis below 0": ("tokens = 2", "tokens = -1", r"tokens of 'mask' on axis -1"),
    "two numbers of tokens": ("tokens = 2", "tokens = 0", r"tokens in two ways: x has 8, mask has 1$"),
    "the width for tokens": ('"x", tokens = 1', '"x", tokens = 2', r"tokens in two ways: x has 16, mask has 8"),
    "one name twice": ('"mask"', '"y"', r"two arguments or results called 'y'"),
    "no name": ('name = "x"', 'name = ""', r"has an empty name"),
    "a run over no layers": (', bound = "layer"', "", r"keeps an input for a run over layers, but is bound to none"),
    "another result": (OUTPUTS, "", r"has 2 arguments and 1 results, its bm\.net names 2 and 0"),
    "another attribute": (NET, '"block"', r"does not say which net it is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_its_function_is_refused(case):
    old, new, message = WRONG[case]
    assert old in NET
    with pytest.raises(CompileError, match=message):
        verify(module_of(function(NET.replace(old, new))))


def test_words_that_are_not_known_are_refused():
    with pytest.raises(CompileError, match=r"kept of #bm\.input is not"):
        module_of(function(NET.replace('"run"', '"ever"')))


def test_two_functions_are_two_nets_or_two_stages_of_one():
    with pytest.raises(CompileError, match=r"is stage 0 of net 'block' in the place of stage 1"):
        verify(module_of(function(), function(name="g")))
    verify(module_of(function(), function(NET.replace('"block"', '"other"'), name="g")))
    verify(module_of(function(), function(STAGE, name="g", x="tensor<1x8x4xbf16>")))


@pytest.mark.parametrize(
    ("nets", "message"),
    [
        ([STAGE], r"is stage 1 of net 'block' in the place of stage 0"),
        ([NET, STAGE, STAGE], r"is stage 1 of net 'block' in the place of stage 2"),
        ([NET, STAGE.replace('"y"', '"z"')], r"is stage 1 of net 'block' and has another bm\.net than its first"),
    ],
)
def test_stages_stand_in_order_and_are_one_net(nets, message):
    with pytest.raises(CompileError, match=message):
        verify(module_of(*(function(net, name=f"f{index}") for index, net in enumerate(nets))))


def test_stages_are_found_together():
    other = function(NET.replace('"block"', '"other"'), name="h")
    module = module_of(function(), other, function(STAGE, name="g"))
    names = [[each.sym_name for each in stages] for stages in stages_of(module.functions())]
    assert names == [["f", "g"], ["h"]]
    assert [net_of(each).stage_name for each in module.functions()] == ["block", "other", "block.1"]


def test_a_pass_that_changes_an_argument_has_to_say_so():
    module = module_of(function())
    (f,) = module.functions()
    f.block.erase_arg(f.args[1])
    f.update_type()
    with pytest.raises(CompileError, match=r"has 1 arguments and 1 results, its bm\.net names 2 and 1"):
        verify(module)


def region(space: str, index: int, tensor: str = X) -> str:
    where = f'space = "{space}", index = {index} : i64, tensor = {tensor}'
    return f'%{space}{index} = "chip.global"() <{{{where}}}> : () -> !chip.global<bytes = 256>'


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (region("input", 2), r"is input 2 of net 'block', which has 2"),
        (region("output", 1), r"is output 1 of net 'block', which has 1"),
        (region("input", 1, X.replace("x16", "")), r"tokens of 'mask' on axis 2, which tensor<1x8xbf16> has not"),
    ],
)
def test_regions_of_memory_are_those_of_the_net(op, message):
    lowered = f"""
      "func.func"() <{{sym_name = "f", function_type = () -> ()}}> ({{
        {region("input", 0)}
        {op}
        "func.return"() : () -> ()
      }}) {{bm.net = {NET}}} : () -> ()
    """
    with pytest.raises(CompileError, match=message):
        verify(module_of(lowered))


def test_an_input_that_the_client_adds_to_asks_for_memory_of_its_own():
    (f,) = module_of(function(NET.replace('"run"', '"session"'))).functions()
    assert has_memory_of_its_own(f)


def test_names_in_the_file():
    block, head = NetAttr("block", "layer"), NetAttr("lm_head")
    assert (block.name_for(3), head.name_for(None)) == ("block_3", "lm_head")
    assert block.makes("block_12")
    assert not block.makes("block_cache_1")
    assert not block.makes("block")
    assert not block.makes("block_")
    assert not block.makes("block_12.1")
    third = NetAttr("block", "layer", stage=2)
    assert third.name_for(3) == "block_3"
    assert third.makes("block_12.2")
    assert not any(map(third.makes, ("block_12", "block_12.1", "block.2", "block_cache_1.2")))
    assert head.makes("lm_head")
    assert not head.makes("lm_head_0")


def part(core: int, stage: int = 0, more: str = "") -> str:
    return f"{NET[:-1]}, stage = {stage}, part = #bm.part<core = {core}, cores = 2{more}>>"


def test_parts_of_a_net_have_stages_each():
    functions = [function(part(core, stage), name=f"f{core}{stage}") for core in (0, 1) for stage in (0, 1)]
    module = module_of(*functions)
    verify(module)
    (found,) = stages_of(module.functions())
    names = [[[each.sym_name for each in stages] for stages in cores] for cores in programs_of(found)]
    assert names == [[["f00", "f01"], ["f10", "f11"]]]
    assert net_of(found[2]).part == NetPart(core=1, cores=2)


def test_a_part_gives_the_results_that_it_writes():
    nothing = function(part(1, more=", writes = []")).replace(f"-> {X}}}", "-> ()}")
    nothing = nothing.replace(f'(%x) : ({X})', "() : ()")
    verify(module_of(nothing))
    with pytest.raises(CompileError, match=r"has 2 arguments and 1 results, its bm\.net names 2 and 0"):
        verify(module_of(function(part(1, more=", writes = []"))))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (part(2), "is number 2 of 2 parts"),
        (part(0, more=", device = 1"), "is number 1 of 1 parts"),
        (part(0, more=", writes = [1]"), r"writes outputs \[1\], and has 1"),
        (part(0, more=", writes = [0, 0]"), "writes that are not in order"),
        (part(0, more=", step = -1"), "a step below 0"),
    ],
)
def test_parts_that_cannot_be(net, message):
    with pytest.raises(CompileError, match=message):
        verify(module_of(function(net)))


def test_a_part_has_the_net_of_the_others():
    other = part(1).replace('"y"', '"z"')
    with pytest.raises(CompileError, match=r"has another bm\.net than its first"):
        verify(module_of(function(part(0)), function(other, name="g")))


def test_what_is_hidden_is_called_after_the_device_that_has_it():
    taken = (NetInput("sum", 1, hidden=True, device=0), NetInput("kept", 1, hidden=True))
    assert [each.name_on(1) for each in taken] == ["sum.0", "kept.1"]
    assert NetOutput("sum", 1, hidden=True).name_on(1) == "sum.1"
    part = NetPart(device=1, devices=2)
    net = NetAttr("f", inputs=(*taken, NetInput("sum", 1, hidden=True, device=1)), part=part)
    assert net.problem() is None
    twice = NetAttr("f", inputs=(*taken, NetInput("kept", 1, hidden=True, device=1)), part=part)
    assert "called 'kept.1'" in (twice.problem() or "")


def test_a_step_is_apart_where_another_keeps_something():
    assert NetAttr("f", apart=True).io_alone
    assert not NetAttr("f", apart=True, flexible=True).io_alone


def test_a_net_may_give_fewer_tokens_than_it_takes():
    """A tower merges neighbours, and one for pictures takes no tokens at all."""
    wide, merged = (TensorType((tokens, 16), F32) for tokens in (8, 2))
    net = NetAttr("vit", inputs=(NetInput("x", tokens=0),), outputs=(NetOutput("y", tokens=0),))
    assert net.problem_of(FunctionType((wide,), (merged,))) is None
    f, *_ = module_of(function()).functions()
    stated = NetAttr("vit", inputs=(NetInput("x"), NetInput("mask")), outputs=(NetOutput("y", tokens=1),))
    f.attributes["bm.net"] = stated
    assert token_count(f) == 8
