"""Python values as text: numbers, strings, lists, and parameters without their defaults."""

import pytest

from compiler.ir.syntax import parse_attribute
from compiler.ir.text import array_text, float_text, list_text, string_text
from compiler.ir.types import BF16
from tests.compiler.ir.toy import View


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (View(BF16), "#toy.view<dtype = bf16>"),
        (View(BF16, scale=1), "#toy.view<dtype = bf16>"),
        (View(BF16, scale=-0.0), "#toy.view<dtype = bf16, scale = -0.0>"),
        (View(BF16, name="a", exact=True), '#toy.view<dtype = bf16, name = "a", exact = true>'),
    ],
)
def test_parameters(value, text):
    assert str(value) == text
    assert parse_attribute(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e-06, "1.0e-06"),
        (1e300, "1.0e+300"),
        (0.1, "0.1"),
        (float("inf"), "0x7FF0000000000000"),
        (float("-inf"), "0xFFF0000000000000"),
    ],
)
def test_floats_have_the_decimal_point_that_mlir_asks_for(value, text):
    assert float_text(value) == text
    assert parse_attribute(f"{text} : f64") == value


def test_strings_are_printable_ascii():
    assert string_text('a"b\\c\n\u4f60') == r'"a\22b\5Cc\0A\E4\BD\A0"'


def test_arrays_are_of_one_kind():
    assert [array_text(value) for value in ((), (True, False), (1, -2), (0.5, 1e9))] == [
        "array<i64>",
        "array<i1: true, false>",
        "array<i64: 1, -2>",
        "array<f64: 0.5, 1000000000.0>",
    ]
    for mixed in ((1, 2.0), (1, True), ("a",)):
        with pytest.raises(TypeError, match="a tuple attribute holds numbers of one kind"):
            array_text(mixed)


def test_one_result_stands_alone_unless_its_arrow_would_be_misread():
    assert [list_text(texts) for texts in ([], ["f32"], ["f32", "f16"], ["(f32) -> f16"])] == [
        "()",
        "f32",
        "(f32, f16)",
        "((f32) -> f16)",
    ]
