"""IR that reads well and means nothing: refused at the op, on every level."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.verify import verify
from tests.helpers import parse_ir

X, ROWS = "tensor<1x8x64xbf16>", "#tensor.lanes<axis = 0>"
LOCAL = "!chip.local<bytes = 256>"
VIEW = "#chip.view<dtype = f32>"

MALFORMED = {
    "a result of another width": (
        f'%y = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>'
        f" : ({X}, tensor<32x64xbf16>) -> tensor<1x8x99xbf16>",
        r"y is tensor<1x8x99xbf16>, expected \[\.\.\., N\], where K = 64, N = 32",
    ),
    "another element type": (
        f'%y = "llm.act"(%x) <{{kind = "silu"}}> : ({X}) -> tensor<1x8x64xf32>',
        "gives tensor<1x8x64xf32>, expected tensor<1x8x64xbf16>",
    ),
    "sums that do not broadcast": (f'%y = "llm.add"(%x, %z) : ({X}, tensor<1x7x64xbf16>) -> {X}', "do not broadcast"),
    "an axis too far": (
        f'%y = "llm.softmax"(%x) <{{axis = 3 : i64}}> : ({X}) -> {X}',
        "axis 3 is outside of tensor<1x8x64xbf16>",
    ),
    "numbers of another kind": (
        f'%y = "llm.reshape"(%x) <{{shape = array<f64: 8.0, 64.0>}}> : ({X}) -> tensor<8x64xbf16>',
        "attribute 'shape' is .*, expected a list of int",
    ),
    "a quantization that there is not": (
        f'%y = "llm.linear"(%x, %w) <{{quant = #llm.quant<bits = 3, group = 64>, '
        f"operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, tensor<32x64xbf16>) -> tensor<1x8x32xbf16>",
        "is no quantization",
    ),
    "matrices that do not fit": (
        f'%y = "tensor.matmul"(%a, %b) <{{transpose_b = false}}> : (tensor<64x128xbf16, {ROWS}>,'
        f" tensor<5x7xbf16, {ROWS}>) -> tensor<64x7xf32, {ROWS}>",
        "does not make tensor<64x7xf32",
    ),
    "arithmetic in DDR": (
        '%y = "tensor.exp2"(%x) : (tensor<64x32xf32>) -> tensor<64x32xf32>',
        "which is not in local memory",
    ),
    "a load of something else": (
        f'%y = "tensor.load"(%x) : (tensor<64x32xf32>) -> tensor<64x16xf32, {ROWS}>',
        "expected the same in local memory",
    ),
    "a kind of instruction that there is not": (
        f'%l = "chip.local"() : () -> {LOCAL}\n'
        f'"chip.ar"(%l, %l) <{{kind = "frobnicate", shape = array<i64: 1, 64, 1, 64>, res = {VIEW},'
        f" opd0 = {VIEW}, operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL}, {LOCAL}) -> ()",
        "kind is 'frobnicate', expected one of mul",
    ),
    "a source without a buffer": (
        f'%l = "chip.local"() : () -> {LOCAL}\n'
        f'"chip.ar"(%l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW}, opd0 = {VIEW},'
        f" operandSegmentSizes = array<i32: 1, 0, 0>}}> : ({LOCAL}) -> ()",
        "takes a buffer with a view, or a constant",
    ),
    "three strides": (
        f'%l = "chip.local"() : () -> {LOCAL}\n'
        f'"chip.ar"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, opd0 = {VIEW},'
        f" res = #chip.view<dtype = f32, strides = [1, 2, 3]>, operandSegmentSizes = array<i32: 1, 1, 0>}}>"
        f" : ({LOCAL}, {LOCAL}) -> ()",
        "not four strides or none",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_ir_is_refused_at_its_op(case):
    text, message = MALFORMED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])
