import struct
import time

import pytest

from compiler.diagnostics import UserError
from compiler.ir.location import FileLoc, FusedLoc, NameLoc
from compiler.ir.parser import parse_body, parse_module
from compiler.ir.printer import print_module
from compiler.ir.syntax import parse_attribute
from compiler.ir.types import BF16, F32, FunctionType, Symbol, TensorType
from tests.compiler.ir.toy import ROW, BufferType, Flag, LinearOp, SplitOp, View

ROW_TEXT = "tensor<4x8xbf16>"


def parse_op(text: str):
    return parse_body(text).block.ops[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 : i64", 3),
        ("-3 : i32", -3),
        ("7", 7),
        ("1.0e-06 : f32", 1e-6),
        ("2.5", 2.5),
        ("0x7FF0000000000000 : f64", float("inf")),
        ("0x3F800000 : f32", 1.0),
        ("0x3F80 : bf16", 1.0),
        ("0x3C00 : f16", 1.0),
        ("0x10 : i64", 16),
        ("true", True),
        (r'"a\"b\\c\0A\E4\BD\A0"', 'a"b\\c\n你'),
        ("@main", Symbol("main")),
        ("[1 : i64, []]", [1, []]),
        ("array<i64: 0, -1>", (0, -1)),
        ("array<i64>", ()),
        ("array<f32: 1.0, 0x7F800000>", (1.0, float("inf"))),
        ("array<i1: true, false>", (True, False)),
        ("{a = 1 : i64, b.c = [true]}", {"a": 1, "b.c": [True]}),
        ("bf16", BF16),
        ("tensor<f32>", TensorType((), F32)),
        ("(tensor<2xbf16>, f32) -> ()", FunctionType((TensorType((2,), BF16), F32), ())),
        ("(f32) -> ((f32) -> f32)", FunctionType((F32,), (FunctionType((F32,), (F32,)),))),
        ("!toy.buffer<share = 1, bytes = 0x10>", BufferType(16, 1.0)),
        ("#toy.flag", Flag()),
        ("#toy.view<dtype = bf16, strides = [1, 2], inner = #toy.flag>", View(BF16, (1, 2), inner=Flag())),
    ],
)
def test_attributes(text, value):
    parsed = parse_attribute(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_keeps_its_bits():
    value = parse_attribute("0x7FF8000000000001 : f64")
    assert struct.pack("<d", value) == struct.pack("<Q", 0x7FF8000000000001)


def test_locations():
    op = parse_op(f'%y = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT} loc(fused["a.b", "f.py":3:4])')
    assert op.loc == FusedLoc((NameLoc("a.b"), FileLoc("f.py", 3, 4)))
    assert op.position == FileLoc("<text>", 1, 6)


def test_mlirs_short_form_of_several_results():
    body = parse_body(f"""
        %a:2 = "toy.split"(%x) : ({ROW_TEXT}) -> ({ROW_TEXT}, {ROW_TEXT})
        %b = "toy.mul"(%a#1, %a#0) : ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT}
    """)
    split, mul = body.block.ops
    assert isinstance(split, SplitOp)
    assert mul.operands == (split.results[1], split.results[0])


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


def test_names_are_made_unique_and_kept():
    text = f"""\
"builtin.module"() ({{
  "func.func"() <{{sym_name = "f", function_type = ({ROW_TEXT}) -> ()}}> ({{
  ^bb0(%x: {ROW_TEXT}):
    %0 = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT}
    %y = "toy.silu"(%0) : ({ROW_TEXT}) -> {ROW_TEXT}
    "func.return"() : () -> ()
  }}) : () -> ()
}}) : () -> ()
"""
    module = parse_module(text)
    assert print_module(module) == text
    for op in module.function("f").block.ops:
        for value in op.results:
            value.name_hint = "x"
    assert "%x_2 = " in print_module(module)
    assert print_module(parse_module(print_module(module))) == print_module(module)


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


def test_integers_in_float_fields_are_floats():
    assert type(parse_attribute("!toy.buffer<bytes = 1, share = 1>").share) is float


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


def test_a_long_function_is_read_line_by_line():
    """20,000 such lines take about two seconds; they must not fall into the grammar's slow rules."""
    line = f'%{{}} = "toy.mul"(%x, %x) : ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT} loc("a")'
    start = time.process_time()
    assert len(parse_body("\n".join(line.format(i) for i in range(2000))).block.ops) == 2000
    assert time.process_time() - start < 2
