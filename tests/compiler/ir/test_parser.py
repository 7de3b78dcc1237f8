"""Names of values and ops: what they resolve to, and errors that name the place."""

import pytest

from compiler.diagnostics import UserError
from compiler.ir.parser import parse_body, parse_module
from compiler.ir.types import F32
from tests.compiler.ir.toy import ROW, ROW_TEXT, LinearOp, parse_op


def test_segments_are_inferred_only_where_they_can_be():
    linear = parse_op(
        f'%y = "toy.linear"(%x, %r) <{{operandSegmentSizes = array<i32: 1, 0, 1, 0>}}> '
        f": ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT}"
    )
    assert isinstance(linear, LinearOp)
    assert linear.bias is None
    assert linear.residual is linear.operands[1]
    assert linear.group == 64


def test_undefined_values_become_arguments_in_order_of_use():
    block = parse_body(f'%y = "toy.mul"(%up, %gate) : ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT}').block
    assert [arg.name_hint for arg in block.args] == ["up", "gate"]


def test_given_arguments_are_the_only_ones():
    with pytest.raises(UserError, match=r"uses %z, which nothing before it defines"):
        parse_body(f'%y = "toy.silu"(%z) : ({ROW_TEXT}) -> {ROW_TEXT}', args=[("x", ROW)])


def test_functions_that_stand_alone_get_a_module():
    body = '({ "func.return"() : () -> () })'
    module = parse_module(f'"func.func"() <{{sym_name = "f", function_type = () -> ()}}> {body} : () -> ()')
    assert module.opname == "builtin.module"
    assert module.function("f").terminator.opname == "func.return"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('"toy.silo"() : () -> ()', "1:1", r"unknown op 'toy\.silo'; did you mean 'toy\.silu'\?"),
        ('"tay.silu"() : () -> ()', "1:1", r"unknown dialect 'tay' of op 'tay\.silu'; known: .*\btoy\b"),
        ('"toy.loop"() ({}) : () -> ', "1:26", "the text ends too early here"),
        ('%y "toy.silu"()', "1:1", "unexpected '%y'"),
        ('"toy.loop"() ({}) : (u4) -> ()', "1:22", "unknown type 'u4'; known: .*ui4"),
        ('"toy.loop"() ({}) : (i3) -> ()', "1:22", "unknown type 'i3'"),
        ('"toy.loop"() ({}) : (tensor<4xq8>) -> ()', "1:22", "unknown type 'q8'"),
        ('"toy.loop"() ({}) : (!toy.bufer<bytes = 1>) -> ()', "1:22", r"unknown type '!toy\.bufer'"),
        ('"toy.loop"() ({}) : (!toy.buffer<size = 1>) -> ()', "1:22", r"!toy\.buffer has no 'size'"),
        ('"toy.loop"() ({}) : (!toy.buffer) -> ()', "1:22", r"!toy\.buffer needs bytes"),
        ('\n  "toy.weight"() <{name = 1e-6}> : () -> ()', "2:28", "unexpected 'e-6'"),
        ('"toy.weight"() <{name = u4}> : () -> ()', "1:25", "unknown type 'u4'; known: .*ui4"),
        ('"toy.weight"() <{name = [[u4]]}> : () -> ()', "1:27", "unknown type 'u4'"),
        ('"toy.weight"() <{name = 1 : f32}> : () -> ()', "1:25", "needs a decimal point"),
        ('%y = "toy.weight"() : () -> f32', "1:6", r"toy\.weight needs attribute name"),
        ('"toy.weight"() <{name = "a"}> : () -> f32', "1:1", "names 0 results of 1 types"),
        ('"toy.silu"(%x) : () -> ()', "1:1", "has 1 operands, but 0 operand types"),
        ('"toy.loop"() : () -> ()', "1:1", "has 0 regions, not 1"),
        ('"toy.linear"(%x, %y) : (f32, f32) -> ()', "1:1", "with 2 operands needs operandSegmentSizes"),
        (
            '"toy.linear"(%x) <{operandSegmentSizes = array<i32: 1, 0, 1, 0>}> : (f32) -> ()',
            "1:1",
            "but operandSegmentSizes",
        ),
        (
            '%y = "toy.silu"(%x) : (f32) -> f32\n"toy.silu"(%y) : (f16) -> ()',
            "2:1",
            "takes %y as f16, but it is f32",
        ),
        (
            '%y = "toy.silu"(%x) : (f32) -> f32\n%y = "toy.silu"(%x) : (f32) -> f32',
            "2:6",
            "defines %y a second time",
        ),
    ],
)
def test_errors_name_the_place(text, place, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_body(text, "f.mlir")
    first, *_ = caught.value.render().splitlines()
    assert first.startswith(f"f.mlir:{place}: error: ")


def test_values_of_a_region_are_not_seen_outside():
    inner = f'%y = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT}'
    text = f'"toy.loop"() ({{ {inner} }}) : () -> ()\n "toy.loop"(%y) ({{}}) : ({ROW_TEXT}) -> ()'
    with pytest.raises(UserError, match="uses %y, which nothing before it defines"):
        parse_body(text, args=[("x", ROW)])


def test_an_isolated_op_does_not_see_values_around_it():
    body = '"func.return"(%x) : (f32) -> ()'
    function = f'"func.func"() <{{sym_name = "f", function_type = () -> f32}}> ({{ {body} }}) : () -> ()'
    with pytest.raises(UserError, match="uses %x"):
        parse_body(f'"toy.loop"(%x) ({{ {function} }}) : (f32) -> ()', args=[("x", F32)])


def test_a_function_does_not_see_values_of_another():
    function = '"func.func"() <{{sym_name = "{}", function_type = () -> ()}}> ({{ {} }}) : () -> ()\n'
    first = function.format("f", '%y = "toy.weight"() <{name = "w"}> : () -> f32')
    with pytest.raises(UserError, match="uses %y"):
        parse_module(first + function.format("g", '"func.return"(%y) : (f32) -> ()'))
