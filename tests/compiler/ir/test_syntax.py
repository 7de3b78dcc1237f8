"""Text as it is written: attributes of every kind, locations, short forms, and its limits."""

import time

import pytest

from compiler.ir.literals import TextError
from compiler.ir.location import FileLoc, FusedLoc, NameLoc
from compiler.ir.parser import parse_body
from compiler.ir.syntax import MAX_DEPTH, MAX_DIGITS, MAX_RESULTS, check_limits, parse_attribute, parse_syntax
from compiler.ir.types import BF16, F32, FunctionType, Symbol, TensorType
from tests.compiler.ir.toy import ROW_TEXT, BufferType, Flag, SplitOp, View, parse_op


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


def test_a_long_function_is_read_line_by_line():
    """20,000 such lines take about two seconds; they must not fall into the grammar's slow rules."""
    line = f'%{{}} = "toy.mul"(%x, %x) : ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT} loc("a")'
    start = time.process_time()
    assert len(parse_body("\n".join(line.format(i) for i in range(2000))).block.ops) == 2000
    assert time.process_time() - start < 2


def test_limits():
    check_limits("[" * MAX_DEPTH + "]" * MAX_DEPTH + "{" * MAX_DEPTH)
    check_limits('"' + "[" * 100 + '"' + "// " + "(" * 100 + "\n[]")  # neither strings nor comments nest
    check_limits("1" * (MAX_DIGITS - 1))
    for text, pos in (("[" * (MAX_DEPTH + 1), MAX_DEPTH), ("[1, " + "2" * MAX_DIGITS, 4)):
        with pytest.raises(TextError) as caught:
            check_limits(text)
        assert caught.value.pos == pos


def test_results_in_mlirs_short_form_are_bounded():
    text = '%a:{} = "toy.split"(%x) : () -> ()'
    (op,) = parse_syntax(text.format(MAX_RESULTS))
    assert (op.results[0], op.results[-1], len(op.results)) == ("%a#0", f"%a#{MAX_RESULTS - 1}", MAX_RESULTS)
    with pytest.raises(TextError, match="%a stands for more than 1000 results"):
        parse_syntax(text.format(MAX_RESULTS + 1))
