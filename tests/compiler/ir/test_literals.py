"""Numbers, strings and objects of dialects as Python values, and what is refused."""

import struct

import pytest

import tests.compiler.ir.toy  # noqa: F401  (defines the types)
from compiler.ir.literals import TextError, unquote
from compiler.ir.syntax import parse_attribute


def test_nan_keeps_its_bits():
    value = parse_attribute("0x7FF8000000000001 : f64")
    assert struct.pack("<d", value) == struct.pack("<Q", 0x7FF8000000000001)


def test_integers_in_float_fields_are_floats():
    assert type(parse_attribute("!toy.buffer<bytes = 1, share = 1>").share) is float


def test_equal_bits_of_nan_are_one_value():
    """Python compares NaNs by identity, and attributes that are written alike are to be equal."""
    for text in ("0x7FF8000000000001 : f64", "0x7FC1 : bf16"):
        assert parse_attribute(f"[{text}]") == parse_attribute(f"[{text}]")


@pytest.mark.parametrize(
    ("text", "string"),
    [
        ('""', ""),
        (r'"\\n"', "\\n"),
        (r'"\n\t"', "\n\t"),
        (r'"\0A\0a"', "\n\n"),
        (r'"\E4\BD\A0"', "\u4f60"),
        (r'"\E4\BD"', "\ufffd"),
    ],
)
def test_strings(text, string):
    assert unquote(text) == string


@pytest.mark.parametrize(
    ("text", "pos", "message"),
    [
        ("0x1FFFF : bf16", 0, "0x1FFFF is not a number of type bf16"),
        ("0x1 : f4", 6, "unknown type 'f4'; known: "),
        ("[0.5, 1 : f16]", 6, "a number of type f16 needs a decimal point"),
        ('!toy.buffer<bytes = "a">', 0, "bytes of !toy.buffer is not "),
        ("#toy.view<dtype = bf16, strides = [1, true]>", 0, "strides of #toy.view is not "),
        ("[1, #toy.flags]", 4, "unknown attribute '#toy.flags'; known: "),
    ],
)
def test_what_is_no_value_is_refused_where_it_stands(text, pos, message):
    with pytest.raises(TextError, match=message) as caught:
        parse_attribute(text)
    assert caught.value.pos == pos
