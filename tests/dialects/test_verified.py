"""IR that reads well and means nothing: refused at the op, on every level."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.verify import verify
from tests.helpers import parse_ir

X, ROWS = "tensor<1x8x64xbf16>", "#tensor.lanes<axis = 0>"
LOCAL = "!chip.local<bytes = 256>"
DDR = "!chip.global<bytes = 16384>"
VIEW = "#chip.view<dtype = f32>"
FOUR = "#weights.scheme<bits = 4, group = 32, zeros = true, scale = bf16>"
STORED = f"tensor<32x64xbf16, {FOUR}>"


def attention(visible: str, keys: int = 8, masked: bool = True) -> str:
    """Eight queries of two heads."""
    q, kv, mask = "tensor<1x2x8x64xbf16>", f"tensor<1x2x{keys}x64xbf16>", f"tensor<1x1x8x{keys}xbf16>"
    return (
        f'%y = "llm.attention"(%q, %k, %v{", %m" * masked}) <{{scale = 0.125 : f64, '
        f'visible = #llm.visible<kind = "{visible}">, operandSegmentSizes = array<i32: 1, 1, 1, {int(masked)}, 0>}}>'
        f' : ({q}, {kv}, {kv}{f", {mask}" * masked}) -> tensor<1x8x2x64xbf16>'
    )


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
    "codes that there are not": (
        f'%w = "llm.weight"() <{{name = "w"}}> : () -> tensor<32x64xbf16, {FOUR.replace("4", "3")}>',
        "which has codes of 3 bits, expected 4 or 8",
    ),
    "groups that split a row": (
        f'%w = "llm.weight"() <{{name = "w"}}> : () -> tensor<32x48xbf16, {FOUR}>',
        "input axis 48 is not a multiple of group 32",
    ),
    "zero points of 8 bits in a tile": (
        '%w = "tensor.packed_weight"() <{sources = ["w"], row = 0 : i64, column = 0 : i64, each = false}>'
        f' : () -> !tensor.packed<rows = 64, columns = 64, element = bf16, scheme = {FOUR.replace("4", "8")}>',
        "stores zero points of 8-bit codes",
    ),
    "an embedding of codes": (
        f'''%w = "llm.weight"() <{{name = "w"}}> : () -> {STORED}
        %y = "llm.embedding"(%x, %w) <{{scale = 1.0 : f64}}> : (tensor<1x8xi32>, {STORED}) -> tensor<1x8x64xbf16>''',
        r"'llm\.embedding' op reads .*, which only linears can",
    ),
    "weights joined that are stored in different ways": (
        f'''%a = "llm.weight"() <{{name = "a"}}> : () -> {STORED}
        %b = "llm.weight"() <{{name = "b"}}> : () -> tensor<32x64xbf16>
        %y = "llm.concat_weights"(%a, %b) : ({STORED}, tensor<32x64xbf16>) -> tensor<64x64xbf16, {FOUR}>''',
        "joins weights that are stored in different ways",
    ),
    "codes that become plain when joined": (
        f'''%a = "llm.weight"() <{{name = "a"}}> : () -> {STORED}
        %y = "llm.concat_weights"(%a, %a) : ({STORED}, {STORED}) -> tensor<64x64xbf16>''',
        "joins weights that are stored in different ways",
    ),
    "codes that become plain when sliced": (
        f'''%a = "llm.weight"() <{{name = "a"}}> : () -> {STORED}
        %y = "llm.slice_weights"(%a) <{{start = 0 : i64, stop = 8 : i64, step = 1 : i64}}>
           : ({STORED}) -> tensor<8x64xbf16>''',
        "which is stored in another way",
    ),
    "a gate and an up projection stored in different ways": (
        f'%y = "llm.gated_linear"(%x, %g, %u) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>'
        f" : ({X}, {STORED}, tensor<32x64xbf16>) -> tensor<1x8x32xbf16>",
        "and up weight tensor<32x64xbf16> differ",
    ),
    "a load of codes as they are": (
        f'''%w = "tensor.weight"() <{{sources = ["w"]}}> : () -> {STORED}
        %y = "tensor.load"(%w) : ({STORED}) -> tensor<32x64xbf16, {ROWS}>''',
        r"'tensor\.load' op reads .*, which only linears can",
    ),
    "a wide weight": (
        '''%w = "tensor.weight"() <{sources = ["w"]}> : () -> tensor<32x64xf32>
        %y = "tensor.linear"(%x, %w) : (tensor<1x8x64xbf16, #tensor.lanes<axis = 1>>, tensor<32x64xf32>)
           -> tensor<1x8x32xf32, #tensor.lanes<axis = 1>>''',
        "takes tensor<32x64xf32> as a whole weight, expected a tensor.weight of bf16",
    ),
    "a local weight of another type": (
        f'%y = "tensor.linear"(%x, %w) : (tensor<1x8x64xbf16, #tensor.lanes<axis = 1>>, tensor<32x64xf16, {ROWS}>)'
        ' -> tensor<1x8x32xf32, #tensor.lanes<axis = 1>>',
        "expected bf16, rows over the lanes",
    ),
    "a region that does not go into its pieces": (
        '%g = "chip.global"() <{space = "weight", source = #weights.packed<names = ["w"], row = 0, column = 0,'
        ' tile = #weights.tile<rows = 64, columns = 32, stored = bf16, lanes = 64, section = 64>, pieces = 3>}>'
        ' : () -> !chip.global<bytes = 4096>',
        "does not go into its pieces or shares",
    ),
    "a region of an impossible tile": (
        '%g = "chip.global"() <{space = "weight", source = #weights.packed<names = ["w"], row = 0, column = 0,'
        ' tile = #weights.tile<rows = 64, columns = 32, stored = f32, lanes = 64, section = 64>>}>'
        ' : () -> !chip.global<bytes = 4096>',
        "expected 16 bits or a scheme",
    ),
    "a causal query without a key": (
        attention("causal", keys=4),
        "4 keys for 8 queries: causal queries have a key each",
    ),
    "nothing that says which keys are visible": (
        attention("masked", masked=False),
        "has no mask, and nothing else says which keys are visible",
    ),
    "a kind of visibility that there is not": (attention("some"), "kind 'some', expected one of causal"),
    "a window without a size": (attention("window"), "has a size that is not that of a window"),
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
    "a table that is not f32": (
        '%y = "llm.table"() <{name = "cos"}> : () -> tensor<64x16xbf16>',
        "but tables are f32",
    ),
    "bounds the wrong way round": (
        f'%y = "llm.clamp"(%x) <{{min = 1.0 : f64, max = -1.0 : f64}}> : ({X}) -> {X}',
        "bounds from 1.0 to -1.0",
    ),
    "a cap that caps all": (f'%y = "llm.softcap"(%x) <{{cap = 0.0 : f64}}> : ({X}) -> {X}', "expected a positive"),
    "an activation that there is not": (
        f'%y = "llm.act"(%x) <{{kind = "swish"}}> : ({X}) -> {X}',
        "attribute 'kind' is swish, expected one of silu, gelu",
    ),
    "sums of two element types": (
        f'%y = "tensor.add"(%a, %b) : (tensor<4x64xf32, {ROWS}>, tensor<4x64xbf16, {ROWS}>) -> tensor<4x64xf32, {ROWS}>',
        "expected one rank and element type",
    ),
    "arithmetic that is f32's, in bf16": (
        f'%y = "tensor.exp2"(%x) : (tensor<4x64xbf16, {ROWS}>) -> tensor<4x64xbf16, {ROWS}>',
        "expected f32",
    ),
    "parts in several layouts": (
        f'%y = "tensor.concat"(%a, %b) <{{axis = 1 : i64}}> : (tensor<4x8xf32, {ROWS}>,'
        f" tensor<4x8xf32, #tensor.replicated>) -> tensor<4x16xf32, {ROWS}>",
        "several element types or layouts",
    ),
    "a table of halves that are not even": (
        '%y = "tensor.rope_table"() <{cos = "cos", sin = "sin"}> : () -> tensor<64x30xf32>',
        "with an even d",
    ),
    "rows of another type than the table's": (
        '%y = "tensor.gather"(%t, %i) : (tensor<9x64xf32>, tensor<4xi32>) -> tensor<4x64xbf16>',
        "expected the items of tensor<9x64xf32>",
    ),
    "a transfer that converts": (
        f'%l = "chip.local"() : () -> {LOCAL}\n%g = "chip.global"() <{{space = "scratch"}}> : () -> {DDR}\n'
        f'"chip.dma"(%l, %g) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW},'
        f" opd0 = #chip.view<dtype = bf16>}}> : ({LOCAL}, {DDR}) -> ()",
        "moves bf16 to f32, and a transfer converts nothing",
    ),
    "a transfer within local memory": (
        f'%l = "chip.local"() : () -> {LOCAL}\n'
        f'"chip.dma"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW},'
        f" opd0 = {VIEW}}}> : ({LOCAL}, {LOCAL}) -> ()",
        "expected one of them in DDR",
    ),
    "scratch that the client sees": (
        f'%g = "chip.global"() <{{space = "scratch", index = 0 : i64}}> : () -> {DDR}',
        "is no input or output",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_ir_is_refused_at_its_op(case):
    text, message = MALFORMED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])
