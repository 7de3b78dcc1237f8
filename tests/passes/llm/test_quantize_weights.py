import pytest

from compiler.diagnostics import CompileError
from tests.helpers import check_pass


def block(quant: str, quantizable: bool = True) -> str:
    x, w = "tensor<1x8x96xbf16>", "tensor<96x96xbf16>"
    return f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "block", function_type = ({x}) -> {x}}}> ({{
  ^bb0(%x: {x}):
    %w = "llm.weight"() <{{name = "o_proj.weight"}}> : () -> {w}
    %u = "llm.weight"() <{{name = "up_proj.weight"}}> : () -> {w}
    %p = "llm.linear"(%x, %w) <{{{quant}operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({x}, {w}) -> {x}
        loc("model.layers.0.self_attn.o_proj")
    %y = "llm.gated_linear"(%p, %w, %u)
        <{{act = "silu", {quant}operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}> : ({x}, {w}, {w}) -> {x}
    "func.return"(%y) : ({x}) -> ()
  }}) {{bm.net = #bm.net<name = "net", quantizable = {str(quantizable).lower()},
        inputs = [#bm.input<name = "x">], outputs = [#bm.output<name = "y">]>}} : () -> ()
}}) : () -> ()
"""


def test_every_linear_of_a_quantizable_net_is_marked():
    quant = "quant = #llm.quant<bits = 8, group = 32, symmetric = true>, "
    check_pass("quantize-weights{bits=8 group=32 symmetric=true}", before=block(""), after=block(quant))


def test_without_options_codes_have_zero_points():
    quant = "quant = #llm.quant<bits = 4, group = 48, symmetric = false>, "
    check_pass("quantize-weights{group=48}", before=block(""), after=block(quant))


def test_a_net_that_is_not_quantizable_stays_as_it_is():
    same = block("", quantizable=False)
    check_pass("quantize-weights{group=32}", before=same, after=same)


def test_group_that_does_not_divide_the_input_axis_is_an_error():
    with pytest.raises(
        CompileError, match=r"layers\.0\.self_attn\.o_proj: .* 96 is not a multiple of group 64"
    ):
        check_pass("quantize-weights{group=64}", before=block(""), after=block(""))
