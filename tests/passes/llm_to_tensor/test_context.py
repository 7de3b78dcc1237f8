"""What has no lowering is refused by name, with the reason."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from tests.helpers import as_net, check_pass
from tests.passes.llm_to_tensor.written import ROW, WEIGHT


def heads(name: str, op: str, result: str) -> tuple[str, str]:
    """Ops behind a split into heads of 64 tokens, whose axes a rule could take for others."""
    x = "tensor<1x64x64x64xbf16>"
    text = f"""
      %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 64, 64, 64>}}> : (tensor<1x64x4096xbf16>) -> {x}
      %p = "llm.permute"(%h) <{{order = array<i64: 0, 2, 1, 3>}}> : ({x}) -> {x}
      %y = {op} -> {result}
    """
    return text, name


HEADS = "tensor<1x64x64x64xbf16>"

REFUSED = {
    "a sum across": heads(
        r"'llm\.add' op takes arrays of .*lanes<axis = 1.* and .*lanes<axis = 2.*, which do not lie beside each other",
        f'"llm.add"(%h, %p) : ({HEADS}, {HEADS})',
        HEADS,
    ),
    "a rotation of tokens": (
        """
          %h = "llm.reshape"(%x) <{shape = array<i64: 1, 64, 64, 64>}>
             : (tensor<1x64x4096xbf16>) -> tensor<1x64x64x64xbf16>
          %y = "llm.rope"(%h, %c, %c) <{mode = "half", rotary_dim = 64 : i64}>
             : (tensor<1x64x64x64xbf16>, tensor<1x1x64x64xf32>, tensor<1x1x64x64xf32>) -> tensor<1x64x64x64xbf16>
        """,
        r"'llm\.rope' op takes an operand with its tokens on axis 2, not one of #tensor\.lanes<axis = 1",
    ),
    "activations of which nothing says where their tokens are": (
        """
          %y = "llm.mul"(%x) <{value = 2.0 : f64}> : (tensor<1x96x64xbf16>) -> tensor<1x96x64xbf16>
          %z = "llm.mul"(%t) <{value = 2.0 : f64}> : (tensor<96x64xbf16>) -> tensor<96x64xbf16>
        """,
        r"'llm\.mul' op reads tensor<96x64xbf16>, of which nothing says where its tokens are",
    ),
    "a weight where activations are needed": (
        f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {ROW}
          %n = "llm.rms_norm"(%w) <{{eps = 1.0e-5 : f64}}> : ({ROW}) -> {ROW}
          %y = "llm.add"(%x, %n) : ({ROW}, {ROW}) -> {ROW}
        """,
        r"'llm\.rms_norm' op takes weights or a table",
    ),
    "activations where a weight is needed": (
        f'%y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({ROW}, {WEIGHT}) -> {ROW}',
        r"'llm\.linear' op takes tensor<64x64xbf16> that is computed where it needs a weight",
    ),
    "a matrix product in f32": (
        """
          %w = "llm.weight"() <{name = "w"}> : () -> tensor<64x64xf32>
          %y = "llm.linear"(%x, %w) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
             : (tensor<1x1x64xf32>, tensor<64x64xf32>) -> tensor<1x1x64xf32> loc("model.layers.0.mlp.up_proj")
        """,
        r"layers\.0\.mlp\.up_proj: 'tensor\.linear' op makes .*f32.*, expected 16 bit",
    ),
    "an op without a rule": (
        f'%y = "llm.matmul"(%x, %x) : ({ROW.replace("64", "1")}, {ROW.replace("64", "1")}) -> {ROW.replace("64", "1")}',
        r"'llm\.matmul' op has no lowering to the tensor dialect",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_lowering_is_named(case):
    text, message = REFUSED[case]
    with pytest.raises(CompileError, match=message):
        check_pass("llm-to-tensor", before=text, after=text, state=as_net)


def test_a_function_that_does_not_say_where_its_tokens_are_is_refused():
    text = f'%y = "llm.mul"(%x) <{{value = 2.0 : f64}}> : ({ROW}) -> {ROW}'
    with pytest.raises(CompileError, match=r"does not say which net it is: it has no bm\.net"):
        check_pass("llm-to-tensor", before=text, after=text)
