"""Names for what repeats: chosen by the printer, understood by the parser, never in a message's line."""

import pytest

import dialects
import tests.compiler.ir.toy  # noqa: F401  (defines the ops)
from compiler.diagnostics import UserError
from compiler.ir.line import op_line
from compiler.ir.parser import parse_body, parse_module
from compiler.ir.printer import print_module
from compiler.ir.syntax import parse_attribute
from dialects.tensor import Lanes
from tests.helpers import parse_ir

dialects.load_all()

TENSOR = "tensor<4x8xf32, #tensor.lanes<axis = {}>>"
MANY = 7  # uses of each layout in the module below


def module_of(*layouts: str) -> str:
    """A function that squares an array of each layout."""
    types = [f"tensor<4x8xf32, {layout}>" for layout in layouts]
    lines = [f'%y{i} = "tensor.mul"(%x{i}, %x{i}) : ({t}, {t}) -> {t}' for i, t in enumerate(types)]
    return print_module(parse_ir("\n".join(lines))[0])


def aliases_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("#", "!"))]


def test_a_layout_that_repeats_is_defined_once_on_top():
    text = module_of("#tensor.lanes<axis = 1>")
    first, second, *_ = text.splitlines()
    assert (first, second) == ("#lanes1 = #tensor.lanes<axis = 1>", '"builtin.module"() ({')
    assert text.count("#tensor.lanes") == 1
    assert text.count("tensor<4x8xf32, #lanes1>") == MANY
    assert print_module(parse_module(text)) == text


def test_aliases_stand_in_the_order_of_first_use():
    text = module_of("#tensor.lanes<axis = 1>", "#tensor.lanes<axis = 0, compact = true>", "#tensor.lanes<axis = 0>")
    assert [line.split()[0] for line in aliases_of(text)] == ["#lanes1", "#lanes0_compact", "#lanes0"]


def test_what_gets_no_shorter_is_written_out():
    replicated = "#tensor.replicated"  # four characters more than its definition is worth after two uses
    y = f'%y = "tensor.exp2"(%x) : (tensor<4xf32, {replicated}>) -> tensor<4xf32, {replicated}>'
    module, _ = parse_ir(y + '\n"func.return"() : () -> ()')
    assert aliases_of(print_module(module)) == []


def test_different_values_of_one_word_are_numbered():
    packed = "!tensor.packed<rows = 64, columns = 64, element = bf16, scheme = #weights.scheme<bits = 4, group = {}, zeros = true, scale = bf16>>"
    weight = '%w{i} = "tensor.packed_weight"() <{{sources = ["w"], row = 0 : i64, column = 0 : i64}}>'
    lines = [f"{weight.format(i=i)} : () -> {packed.format(group)}" for i, group in enumerate((32, 64))]
    lines += ['"func.return"(%w0, %w0, %w0, %w1, %w1, %w1) : (' + ", ".join([packed.format(32)] * 3 + [packed.format(64)] * 3) + ") -> ()"]
    text = print_module(parse_ir("\n".join(lines))[0])
    assert [line.partition(" =")[0] for line in aliases_of(text)] == ["!packed_64x64_w4", "!packed_64x64_w4_2"]
    assert print_module(parse_module(text)) == text


def test_lines_of_messages_and_numbered_texts_have_none():
    module = parse_module(module_of("#tensor.lanes<axis = 1>"))
    mul = module.function("test").block.ops.first
    assert mul is not None
    assert "#tensor.lanes<axis = 1>" in op_line(mul)
    assert aliases_of(print_module(module, names=False)) == []


def test_positions_count_the_definitions():
    positions = {}
    module = parse_module(module_of("#tensor.lanes<axis = 1>"))
    lines = print_module(module, positions=positions).splitlines()
    for op, (line, column) in positions.items():
        assert lines[line - 1][column - 1 :].startswith(f'"{op.opname}"')


def test_an_alias_may_stand_in_another_and_inside_an_object():
    text = """
        #columns = #tensor.lanes<axis = 1>
        !row = tensor<4x8xf32, #columns>
        #flag = #toy.flag
        #view = #toy.view<dtype = f32, inner = #flag>
        %y = "toy.linear"(%x) <{view = #view, operandSegmentSizes = array<i32: 1, 0, 0, 0>}> : (!row) -> !row
    """
    (op,) = parse_body(text).block.ops
    assert op.result.type == parse_attribute("tensor<4x8xf32, #tensor.lanes<axis = 1>>")
    assert op.attributes["view"] == parse_attribute("#toy.view<dtype = f32, inner = #toy.flag>")


def test_an_alias_means_nothing_in_the_next_text():
    use = '"toy.loop"(%x) ({}) : (tensor<8xf32, #a>) -> ()'
    parse_body(f"#a = #tensor.lanes<axis = 0>\n{use}")
    again = parse_body(f"#a = #tensor.replicated\n{use}").block.ops[0]
    assert again.operands[0].type.layout != Lanes(0)
    with pytest.raises(UserError, match="#a is not defined"):
        parse_body(use)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('"toy.loop"() ({}) : (!row) -> ()', "1:22", "!row is not defined, as an alias is before its first use"),
        ("#row = #tensor.replicated\n" '"toy.loop"() ({}) : (tensor<8xf32, #rows>) -> ()', "2:36", "did you mean '#row'"),
        ("#a = #tensor.replicated\n#a = #tensor.replicated\n", "2:1", "#a is defined a second time"),
        ("#a = #b\n#b = #a\n", "1:6", "#b is not defined"),
        ("!a = tensor<8xf32, #a>\n", "1:20", "#a is not defined"),
        ("!a = #tensor.replicated\n", "1:1", "!a stands for what is no type"),
        ("#a = [1, 2]\n", "1:1", "#a stands for what is no type or attribute of a dialect"),
        ('#a = \n"toy.loop"() ({}) : () -> ()', "2:11", r"unexpected '\('"),
        ('%y = "toy.weight"() <{name = #a}> : () -> f32', "1:30", "#a is not defined"),
        ('"toy.loop"() ({}) : () -> ()\n#a = #tensor.replicated', "2:1", "unexpected '#a'"),
    ],
)
def test_errors_name_the_place(text, place, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_body(text if '"toy' in text else text + '"toy.loop"() ({}) : () -> ()', "f.mlir")
    assert caught.value.render().startswith(f"f.mlir:{place}: error: ")
