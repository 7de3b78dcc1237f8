"""Ops of the llm dialect that read well and mean nothing: refused at the op."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.verify import verify
from tests.helpers import parse_ir

X = "tensor<1x8x64xbf16>"
FOUR = "#weights.scheme<bits = 4, group = 32, zeros = true, scale = bf16>"
STORED = f"tensor<32x64xbf16, {FOUR}>"


def attention(visible: str, keys: int = 8, masked: bool = True, size: int = 0) -> str:
    """Eight queries of two heads."""
    q, kv, mask = "tensor<1x2x8x64xbf16>", f"tensor<1x2x{keys}x64xbf16>", f"tensor<1x1x8x{keys}xbf16>"
    return (
        f'%y = "llm.attention"(%q, %k, %v{", %m" * masked}) <{{scale = 0.125 : f64, '
        f'visible = #llm.visible<kind = "{visible}", size = {size}>, operandSegmentSizes = array<i32: 1, 1, 1, {int(masked)}, 0>}}>'
        f' : ({q}, {kv}, {kv}{f", {mask}" * masked}) -> tensor<1x8x2x64xbf16>'
    )


def gather_rows(streams: str, ids: str = "tensor<3x8xi32>") -> str:
    """Rows of 64 columns for eight tokens."""
    stated = f"<{{streams = #llm.streams<{streams}>}}>" * bool(streams)
    return f'%y = "llm.gather_rows"(%t, %i) {stated} : (tensor<32x64xbf16>, {ids}) -> {X}'


def experts(gated: bool = True, ids: str = "tensor<8x2xi32>", inner: int = 32, settings: str = "") -> str:
    """Four experts, of whom eight tokens choose two each."""
    up, down = "tensor<4x32x64xbf16>", f"tensor<4x64x{inner}xbf16>"
    return (
        f'%y = "llm.experts"(%x, %i, %w, {"%g, " * gated}%u, %d) <{{act = "silu"{settings}, '
        f"operandSegmentSizes = array<i32: 1, 1, 1, {int(gated)}, 1, 1, 0, 0, 0>}}>"
        f' : (tensor<8x64xbf16>, {ids}, tensor<8x2xbf16>, {f"{up}, " * gated}{up}, {down}) -> tensor<8x64xbf16>'
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
    "an embedding of codes": (
        f'''%w = "llm.weight"() <{{name = "w"}}> : () -> {STORED}
        %y = "llm.embedding"(%x, %w) <{{scale = 1.0 : f64}}> : (tensor<1x8xi32>, {STORED}) -> tensor<1x8x64xbf16>''',
        r"'llm\.embedding' op reads .*, which only linears can",
    ),
    "what is put goes beyond the end": (
        f'%y = "llm.put"(%x, %z) <{{axis = 1 : i64, start = 2 : i64}}> : ({X}, tensor<1x7x64xbf16>) -> {X}',
        "from 2 on, expected no more of the same items",
    ),
    "inputs of half a group": (
        f'''%a = "llm.weight"() <{{name = "a"}}> : () -> {STORED}
        %y = "llm.slice_weights"(%a) <{{start = 16 : i64, stop = 48 : i64, axis = 1 : i64}}>
            : ({STORED}) -> tensor<32x32xbf16, {FOUR}>''',
        "takes inputs 16:48:1, which are no whole groups",
    ),
    "groups of other heads than there are": (
        attention("causal").replace("scale =", "groups = array<i64: 1, 2>, scale ="),
        "heads of q .* do not group over those of k",
    ),
    "groups of too few KV heads": (
        attention("causal").replace("scale =", "groups = array<i64: 2>, scale ="),
        r"has groups \[2\], expected one or more query heads for each KV head",
    ),
    "a sum of what was rounded": (
        f'%y = "llm.all_reduce"(%x) <{{over = "core"}}> : ({X}) -> {X}',
        "expected floats of f32",
    ),
    "terms of 16 bit": (
        f'%y = "llm.add_terms"(%a, %b) : ({X}, {X}) -> {X}',
        "makes tensor<1x8x64xbf16> of tensor<1x8x64xbf16>, tensor<1x8x64xbf16>",
    ),
    "an index too few": (
        '%y = "llm.index_of_largest"(%a, %b, %i) <{operandSegmentSizes = array<i32: 2, 1>}>'
        " : (tensor<1x1xf32>, tensor<1x1xf32>, tensor<1x1xi32>) -> tensor<1x1xi32>",
        "by 2 values of 1 indices",
    ),
    "parts of other sizes": (
        f'%y = "llm.all_gather"(%x) <{{over = "core", axis = 1 : i64, sizes = array<i64: 4>}}> : ({X}) -> tensor<1x4x64xbf16>',
        r"joins parts of sizes \[4\], where number 0 of 1 has 8",
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
    "a causal query without a key": (
        attention("causal", keys=4),
        "4 keys for 8 queries: causal queries have a key each",
    ),
    "nothing that says which keys are visible": (
        attention("masked", masked=False),
        "has no mask, and nothing else says which keys are visible",
    ),
    "a kind of visibility that there is not": (attention("some"), "kind 'some', expected one of causal"),
    "a band of queries that have no position": (
        attention("band", keys=4, size=4),
        "4 keys for 8 queries: band queries have a key each",
    ),
    "a window without a size": (attention("window"), "has a size that is not that of a window"),
    "a band without a size": (attention("band"), "has a size that is not that of a window, chunk or band"),
    "a table that is not f32": (
        '%y = "llm.table"() <{name = "cos"}> : () -> tensor<64x16xbf16>',
        "but tables are f32",
    ),
    "indices that are no whole numbers": (
        '%i = "llm.indices"() <{name = "order"}> : () -> tensor<64xf32>',
        "expected one axis of i32",
    ),
    "an order that is computed": (
        f'%y = "llm.take"(%x, %order) : ({X}, tensor<5xi32>) -> tensor<1x8x5xbf16>',
        "needs one that is known at compile time",
    ),
    "rows that one of several streams picks, and nothing says which": (
        gather_rows(""),
        r"takes ids tensor<3x8xi32>, expected \[1, S\] where no streams are told",
    ),
    "streams of fewer columns than a table has": (
        gather_rows("numbers = [0, 1], widths = [32, 16]"),
        "has streams for 48 columns of a table tensor<32x64xbf16>",
    ),
    "a stream that there is not": (
        gather_rows("numbers = [0, 3], widths = [32, 32]"),
        "takes ids tensor<3x8xi32>, which have no stream 3",
    ),
    "streams on the axis of tokens": (
        gather_rows("numbers = [0, 1], widths = [32, 32], axis = 1"),
        r"y is .*, expected \[1, S, R\]|gives .*, expected tensor<1x3x64xbf16>",
    ),
    "streams on an axis that ids have not": (
        gather_rows("numbers = [0, 1], widths = [32, 32], axis = 2"),
        "expected a stream for each of one or more sections, on axis 0 or 1",
    ),
    "streams for sections that there are not": (
        gather_rows("numbers = [0, 1], widths = [64]"),
        "expected a stream for each of one or more sections",
    ),
    "a section without columns": (
        gather_rows("numbers = [0, 1], widths = [64, 0]"),
        "has a section without columns",
    ),
    "a temperature in whole numbers": (
        '%y = "llm.nucleus"(%x, %t, %k, %p) <{least = 5 : i64}> : (tensor<1x9xf32>, tensor<1xi32>, tensor<1xi32>,'
        " tensor<1xf32>) -> tensor<1x9xf32>",
        "takes tensor<1xi32>, expected f32",
    ),
    "more candidates that stay than there are": (
        '%y = "llm.nucleus"(%x, %t, %k, %p) <{least = 10 : i64}> : (tensor<1x9xf32>, tensor<1xf32>, tensor<1xi32>,'
        " tensor<1xf32>) -> tensor<1x9xf32>",
        "asks for 10, expected at least 1 and no more than",
    ),
    "bounds the wrong way round": (
        f'%y = "llm.clamp"(%x) <{{min = 1.0 : f64, max = -1.0 : f64}}> : ({X}) -> {X}',
        "bounds from 1.0 to -1.0",
    ),
    "a cap that caps all": (f'%y = "llm.softcap"(%x) <{{cap = 0.0 : f64}}> : ({X}) -> {X}', "expected a positive"),
    "more of the largest than there are": (
        '%v, %i = "llm.topk"(%x) <{k = 65 : i64}> : (tensor<8x64xf32>) -> (tensor<8x65xf32>, tensor<8x65xi32>)',
        "asks for 65, expected at least 1 and no more than the last axis of tensor<8x64xf32> has",
    ),
    "ids of experts that are no integers": (experts(ids="tensor<8x2xf32>"), "expected i32 and the axes"),
    "ids of other tokens": (experts(ids="tensor<7x2xi32>"), r"ids is tensor<7x2xi32>, expected \[S, k\]"),
    "experts whose parts do not fit": (experts(inner=16), r"down is .*, expected \[N, K, F\]"),
    "experts with a limit of a gate that there is not": (
        experts(gated=False, settings=", limit = 7.0 : f64"),
        "limits, shifts or biases a gate that there is not",
    ),
    "a limit that nothing is within": (experts(settings=", limit = 0.0 : f64"), "expected a positive number"),
    "a choice by floats": (
        f'%y = "llm.take_along"(%x, %i) : ({X}, tensor<1x8x2xf32>) -> tensor<1x8x2xbf16>',
        "ids are tensor<1x8x2xf32>, expected i32",
    ),
    "marks of another width": (
        '%y = "llm.multi_hot"(%i) <{size = 16 : i64}> : (tensor<8x2xi32>) -> tensor<8x64xf32>',
        "gives tensor<8x64xf32>, expected floats with 16 in the last axis",
    ),
    "a mask of another shape": (
        f'%y = "llm.masked_fill"(%x, %m) <{{value = 0.0 : f64}}> : ({X}, tensor<1x1x64xbf16>) -> {X}',
        "mask is tensor<1x1x64xbf16>",
    ),
    "an activation that there is not": (
        f'%y = "llm.act"(%x) <{{kind = "swish"}}> : ({X}) -> {X}',
        "attribute 'kind' is swish, expected one of silu, gelu",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_ir_is_refused_at_its_op(case):
    text, message = MALFORMED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])
