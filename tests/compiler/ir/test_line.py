"""One line of an op for a message, and the names of values."""

from compiler.ir.line import op_line, value_names
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from tests.compiler.ir.toy import ROW_TEXT, parse_op
from tests.helpers import parse_ir


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


def test_a_message_shows_one_line_without_location_and_insides():
    inner = f'%z = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT}'
    text = f'"toy.loop"(%x) ({{ {inner} }}) {{note = 1 : i64}} : ({ROW_TEXT}) -> () loc("a.b")'
    loop, _ = parse_ir(text)[0].function("test").block.ops
    assert op_line(loop) == f'"toy.loop"(%x) ({{...}}) {{note = 1 : i64}} : ({ROW_TEXT}) -> ()'
    (silu,) = loop.regions[0].block.ops
    assert op_line(silu) == inner


def test_a_line_has_the_names_that_the_whole_text_has():
    module, _ = parse_ir(f"""
        %a = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT}
        %b = "toy.mul"(%a, %a) : ({ROW_TEXT}, {ROW_TEXT}) -> {ROW_TEXT}
    """)
    silu, mul, _ = module.function("test").block.ops
    mul.y.name_hint = "a"
    assert op_line(mul).startswith('%a_1 = "toy.mul"(%a, %a)')
    silu.detach()
    assert op_line(mul).startswith('%a = "toy.mul"(%<undefined>, %<undefined>)')


def test_a_hint_that_is_no_name_becomes_one():
    silu = parse_op(f'%y = "toy.silu"(%x) : ({ROW_TEXT}) -> {ROW_TEXT}')
    for hint, name in (("q/k v", "%q_k_v"), ("0.weight", "%_0.weight"), ("gr\u00f6\u00dfe", "%gr__e"), (None, "%0"), ("", "%0")):
        silu.y.name_hint = hint
        assert value_names(silu) == {silu.y: name}
    silu.y.name_hint = "y"
    assert value_names(silu, hints=False) == {silu.y: "%0"}


def test_each_function_has_names_of_its_own():
    function = """
        "func.func"() <{sym_name = "%s", function_type = (f32) -> ()}> ({
        ^bb0(%%x: f32):
          "func.return"() : () -> ()
        }) : () -> ()
    """
    module = parse_module(f'"builtin.module"() ({{ {function % "f"} {function % "g"} }}) : () -> ()')
    assert [*value_names(module).values()] == ["%x", "%x"]
