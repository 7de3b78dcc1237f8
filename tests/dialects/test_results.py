"""Of every op with results: one that is right, whose result may be of no other type.

What a result chooses for itself, an op says with nothing else, is in FREE; all else is refused at the op.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import dialects
from compiler.diagnostics import CompileError
from compiler.ir.core import Op
from compiler.ir.define import OPS
from compiler.ir.module import Module
from compiler.ir.types import BF16, F16, F32, I32, TensorType, Type
from compiler.ir.verify import verify
from dialects.tensor import Lanes, PackedType, Replicated
from tests.helpers import parse_ir

dialects.load_all()

ALIASES = """
  #lanes0 = #tensor.lanes<axis = 0>
  #lanes1 = #tensor.lanes<axis = 1>
  !x = tensor<1x8x64xbf16>
  !w = tensor<32x64xbf16>
  !stack = tensor<4x32x64xbf16>
  !heads = tensor<1x4x8x16xbf16>
  !kv = tensor<1x2x8x16xbf16>
  !angles = tensor<1x1x8x16xf32>
  !experts = tensor<6x32x64xbf16>
  !local = tensor<4x64xf32, #lanes1>
  !half = tensor<4x64xbf16, #lanes0>
  #w4_32 = #weights.scheme<bits = 4, group = 32, zeros = true, scale = bf16>
  !packed = !tensor.packed<rows = 32, columns = 64, element = bf16, scheme = #w4_32>
  !everywhere = tensor<1x9xf32, #tensor.replicated>
  !number = tensor<1x1xf32, #tensor.replicated>
  !tile = !tensor.packed<rows = 32, columns = 64, element = bf16, scheme = #w4_32, local = true>
"""
STACKS = """
%g = "tensor.weight"() <{sources = ["g"]}> : () -> !experts
%u = "tensor.weight"() <{sources = ["u"]}> : () -> !experts
%d = "tensor.weight"() <{sources = ["d"]}> : () -> tensor<6x64x32xbf16>
"""
SOURCES = '%w = "tensor.weight"() <{sources = ["w"]}> : () -> !w\n'
ORDER = '%order = "llm.indices"() <{name = "order"}> : () -> tensor<5xi32>\n'
LINES = [
    '"llm.weight"() <{name = "w"}> : () -> !w',
    '"llm.table"() <{name = "cos"}> : () -> tensor<64x16xf32>',
    '"llm.concat_weights"(%a, %a) : (!w, !w) -> tensor<64x64xbf16>',
    '"llm.slice_weights"(%a) <{start = 0 : i64, stop = 8 : i64}> : (!w) -> tensor<8x64xbf16>',
    '"llm.all_reduce"(%x) <{over = "core"}> : (tensor<1x8x64xf32>) -> !x',
    '"llm.all_gather"(%x) <{over = "device", axis = 2 : i64, sizes = array<i64: 64>}> : (!x) -> !x',
    '"llm.largest"(%x) <{offset = 64 : i64}> : (!x) -> (tensor<1x8x1xf32>, tensor<1x8x1xi32>)',
    '"llm.all_reduce_argmax"(%v, %i) <{over = "core"}> : (tensor<1x1xf32>, tensor<1x1xi32>) -> tensor<1x1xi32>',
    '"llm.add_terms"(%a, %a) : (tensor<1x8x64xf32>, tensor<1x8x64xf32>) -> !x',
    '"llm.index_of_largest"(%v, %i) <{operandSegmentSizes = array<i32: 1, 1>}>'
    " : (tensor<1x1xf32>, tensor<1x1xi32>) -> tensor<1x1xi32>",
    '"llm.indices"() <{name = "order"}> : () -> tensor<5xi32>',
    '"llm.take"(%x, %order) : (!x, tensor<5xi32>) -> tensor<1x8x5xbf16>',
    '"llm.gather_rows"(%a, %i) : (!w, tensor<1x8xi32>) -> !x',
    '"llm.gather_rows"(%a, %i) <{streams = #llm.streams<numbers = [2, 0], widths = [60, 4]>}>'
    " : (!w, tensor<3x8xi32>) -> !x",
    '"llm.gather_rows"(%a, %i) <{streams = #llm.streams<numbers = [1, 0], widths = [32, 32], axis = 1>}>'
    " : (!w, tensor<8x2xi32>) -> !x",
    '"llm.embedding"(%i, %a) : (tensor<1x8xi32>, !w) -> !x',
    '"llm.linear"(%x, %w) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}> : (!x, !w) -> tensor<1x8x32xbf16>',
    '"llm.gated_linear"(%x, %g, %w) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (!x, !w, !w)'
    " -> tensor<1x8x32xbf16>",
    '"llm.matmul"(%a, %b) : (tensor<2x3x4xbf16>, tensor<2x4x5xbf16>) -> tensor<2x3x5xbf16>',
    '"llm.rms_norm"(%x) <{eps = 1.0e-6 : f64}> : (!x) -> !x',
    '"llm.layer_norm"(%x) <{eps = 1.0e-6 : f64, operandSegmentSizes = array<i32: 1, 0, 0>}> : (!x) -> !x',
    '"llm.rope"(%q, %c, %s) <{rotary_dim = 16 : i64}> : (!heads, !angles, !angles) -> !heads',
    '"llm.hide_before"(%m, %f) : (tensor<1x1x8x16xbf16>, tensor<1x8x1xf32>) -> tensor<1x1x8x16xf32>',
    '"llm.kv_concat"(%h, %n) : (!kv, !kv) -> tensor<1x2x16x16xbf16>',
    '"llm.attention"(%q, %k, %v) <{visible = #llm.visible<kind = "all">, scale = 0.25 : f64, operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}>'
    " : (!heads, !kv, !kv) -> tensor<1x8x4x16xbf16>",
    '"llm.act"(%x) <{kind = "silu"}> : (!x) -> !x',
    '"llm.swiglu"(%g, %u) : (!x, !x) -> !x',
    *(f'"llm.{name}"(%a) <{{value = 2.0 : f64}}> : (!x) -> !x' for name in ("add", "sub", "mul", "div")),
    *(f'"llm.{name}"(%a) : (!x) -> !x' for name in ("neg", "rsqrt")),
    '"llm.pow"(%x) <{exponent = 2.0 : f64}> : (!x) -> !x',
    '"llm.clamp"(%x) <{min = 0.0 : f64}> : (!x) -> !x',
    '"llm.softcap"(%x) <{cap = 30.0 : f64}> : (!x) -> !x',
    '"llm.softmax"(%x) <{axis = 2 : i64}> : (!x) -> !x',
    *(f'"llm.{name}"(%x) <{{axis = 2 : i64}}> : (!x) -> tensor<1x8x1xbf16>' for name in ("mean", "reduce_sum")),
    '"llm.argmax"(%x) : (!x) -> tensor<1x8x1xi32>',
    '"llm.topk"(%x) <{k = 5 : i64}> : (!x) -> (tensor<1x8x5xbf16>, tensor<1x8x5xi32>)',
    '"llm.take_along"(%x, %i) : (!x, tensor<1x8x2xi32>) -> tensor<1x8x2xbf16>',
    '"llm.multi_hot"(%i) <{size = 64 : i64}> : (tensor<1x8x2xi32>) -> !x',
    '"llm.logical_not"(%x) : (!x) -> !x',
    '"llm.masked_fill"(%x, %m) <{value = 0.0 : f64}> : (!x, !x) -> !x',
    '"llm.experts"(%h, %i, %s, %g, %u, %d) <{act = "silu", '
    "operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>}>"
    " : (tensor<8x64xbf16>, tensor<8x2xi32>, tensor<8x2xbf16>, !stack, !stack, tensor<4x64x32xbf16>)"
    " -> tensor<8x64xbf16>",
    '"llm.widen"(%x) : (!x) -> tensor<1x8x64xf32>',
    '"llm.narrow"(%f) : (tensor<1x8x64xf32>) -> !x',
    '"llm.penalize"(%l, %i, %p) : (tensor<1x99xf32>, tensor<1x8xi32>, tensor<1xf32>) -> tensor<1x99xf32>',
    '"llm.nucleus"(%x, %t, %k, %p) <{least = 5 : i64}> : (tensor<1x9xf32>, tensor<1xf32>, tensor<1xi32>, tensor<1xf32>)'
    " -> tensor<1x9xf32>",
    '"llm.reshape"(%x) <{shape = array<i64: 8, 64>}> : (!x) -> tensor<8x64xbf16>',
    '"llm.permute"(%x) <{order = array<i64: 2, 0, 1>}> : (!x) -> tensor<64x1x8xbf16>',
    '"llm.slice"(%x) <{axis = 1 : i64, start = 0 : i64, stop = 4 : i64}> : (!x) -> tensor<1x4x64xbf16>',
    '"llm.concat"(%x, %x) <{axis = 1 : i64}> : (!x, !x) -> tensor<1x16x64xbf16>',
    '"llm.put"(%x, %x) <{axis = 1 : i64}> : (!x, !x) -> !x',
    '"llm.pad"(%x) <{size = 70 : i64}> : (!x) -> tensor<1x8x70xbf16>',
    '"llm.broadcast"(%x) <{shape = array<i64: 3, 8, 64>}> : (!x) -> tensor<3x8x64xbf16>',
    '"tensor.weight"() <{sources = ["w"]}> : () -> !w',
    '"tensor.packed_weight"() <{sources = ["w"], row = 0 : i64, column = 0 : i64}> : () -> !packed',
    '"tensor.rope_table"() <{cos = "cos", sin = "sin"}> : () -> tensor<64x128xf32>',
    '"tensor.indices"() <{source = "order"}> : () -> tensor<5xui16>',
    '"tensor.rope_table"() <{cos = "cos", sin = "sin", columns = array<i64: 0, 3, 5>}> : () -> tensor<64x3xf32>',
    '"tensor.table"() <{name = "scale"}> : () -> tensor<64x1xf32>',
    '"tensor.iota"() : () -> tensor<1x64xf32>',
    '"tensor.broadcast"(%x) : (tensor<1x64xf32, #lanes1>) -> tensor<4x64xf32, #lanes1>',
    '"tensor.load"(%x) : (tensor<4x64xf32>) -> !local',
    '"tensor.load"(%x) : (!packed) -> !tile',
    '"tensor.store"(%x) : (!local) -> tensor<4x64xf32>',
    '"tensor.scatter"(%t, %i, %r) : (tensor<9x2xf32>, tensor<1x4xi32>, tensor<1x4x2xf32, #lanes0>) -> tensor<9x2xf32>',
    '"tensor.gather"(%t, %i) : (tensor<9x64xf32>, tensor<4xi32>) -> !local',
    *(f'"tensor.{name}"(%a, %a) : (!local, !local) -> !local' for name in ("add", "sub", "mul", "max", "min")),
    *(f'"tensor.{name}"(%a) : (!local) -> !local' for name in ("exp2", "exp2_whole", "ceil", "rsqrt", "reciprocal", "sigmoid", "normal_cdf")),
    '"tensor.softmax_weights"(%x, %t) : (!local, tensor<4x1xf32, #lanes1>) -> tensor<4x64xbf16, #lanes1>',
    '"tensor.cast"(%x) : (!local) -> tensor<4x64xbf16, #lanes1>',
    '"tensor.gate"(%g, %u) : (!local, !local) -> !local',
    '"tensor.hiding"(%x) <{times = 4 : i64}> : (tensor<1x64xbf16, #lanes1>) -> tensor<4x64xi8, #lanes1>',
    '"tensor.bf16_gate"(%g, %u) : (!local, !local) -> !local',
    '"tensor.bf16_swish"(%x) <{slope = 1.6 : f64, cubic = 0.07 : f64}> : (!local) -> !local',
    '"tensor.reduce"(%x) <{kind = "max", axis = 1 : i64}> : (!local) -> tensor<4x1xf32, #tensor.replicated>',
    '"tensor.rope"(%x, %r) : (!local, tensor<4x128xf32, #lanes1>) -> !local',
    '"tensor.argmax"(%x) : (tensor<1x64xf32, #lanes1>) -> tensor<1x1xi32, #lanes0>',
    '"tensor.topk"(%x) <{k = 5 : i64}> : (tensor<4x64xf32, #lanes0>) -> (tensor<4x5xf32, #lanes0>, tensor<4x5xi32, #lanes0>)',
    '"tensor.nucleus"(%x, %n, %n, %n) <{least = 5 : i64}> : (!everywhere, !number, !number, !number) -> !everywhere',
    '"tensor.dequantize"(%x) : (!tile) -> tensor<32x64xbf16, #lanes0>',
    '"tensor.linear"(%x, %w) <{operandSegmentSizes = array<i32: 1, 1, 0>}> : (!half, !w) -> tensor<4x32xf32, #lanes0>',
    '"tensor.gated_linear"(%x, %w, %w) : (!half, !w, !w) -> tensor<4x32xbf16, #lanes0>',
    '"tensor.act_linear"(%x, %w) <{act = "gelu"}> : (!half, !w) -> tensor<4x32xbf16, #lanes0>',
    '"tensor.matmul"(%a, %b) : (!half, tensor<64x8xbf16, #lanes0>) -> tensor<4x8xf32, #lanes0>',
    '"tensor.slice"(%x) <{starts = array<i64: 0, 0>, sizes = array<i64: 2, 64>}> : (!local) -> tensor<2x64xf32, #lanes1>',
    '"tensor.reshape"(%x) : (!local) -> tensor<2x2x64xf32, #tensor.lanes<axis = 2>>',
    '"tensor.permute"(%x) <{order = array<i64: 1, 0>}> : (!local) -> tensor<64x4xf32, #lanes0>',
    '"tensor.concat"(%x, %x) <{axis = 0 : i64}> : (!local, !local) -> tensor<8x64xf32, #lanes1>',
    '"tensor.relayout"(%x) : (tensor<1x64xf32, #lanes1>) -> tensor<4x16xf32, #lanes0>',
    '"tensor.take"(%x, %order) : (!half, tensor<5xui16, #tensor.lanes<axis = 0, compact = true>>)'
    " -> tensor<4x5xbf16, #lanes0>",
    '"tensor.experts"(%x, %s, %g, %u, %d) <{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}>'
    " : (!half, tensor<4x6xf32, #lanes0>, !experts, !experts, tensor<6x64x32xbf16>) -> tensor<4x64xf32, #lanes0>",
    '"tensor.load_expert"(%t) <{number = 5 : i64, operandSegmentSizes = array<i32: 1, 0>}> : (!packed) -> !tile',
    '"tensor.replicate"(%x) : (tensor<1x64xf32, #lanes0>) -> tensor<1x64xf32, #tensor.replicated>',
    '"tensor.pad"(%x) <{value = 0.0 : f64}> : (!half) -> tensor<4x80xbf16, #lanes0>',
    '"tensor.join"(%x) <{over = "core", axis = 2 : i64, sizes = array<i64: 64>}> : (!x) -> !x',
]
OTHERS = {"builtin.module", "func.func", "func.return", "chip.local", "chip.global"}  # no results, or any size
OTHERS |= {"tensor.send", "tensor.receive"}  # of a net in parts, see test_tensor.py
FREE = {  # what the result's type says, since nothing else does
    "llm.weight": {"shape", "element", "place"},  # nobody reads where values of the llm dialect lie
    "llm.table": {"shape", "place"},
    "llm.indices": {"shape", "place"},
    "llm.narrow": {"element"},
    "tensor.indices": {"shape"},
    "llm.multi_hot": {"element", "place"},
    "llm.all_reduce": {"element", "place"},
    "llm.add_terms": {"element", "place"},
    "tensor.weight": {"shape", "element"},
    "tensor.rope_table": {"shape"},
    "tensor.iota": {"shape"},
    "tensor.broadcast": {"layout", "shape"},
    "tensor.table": {"shape"},
    "tensor.packed_weight": {"shape", "scheme"},
    "tensor.load": {"layout"},
    "tensor.gather": {"layout", "place"},
    "tensor.reshape": {"shape"},  # of as many items
    "tensor.cast": {"element"},
    "tensor.softmax_weights": {"element"},  # of either type of 16 bit
    "tensor.pad": {"shape"},
}


def name_of(line: str) -> str:
    return line.split('"')[1]


def one_op(line: str) -> tuple[Module, Op]:
    """A module with that op, on arguments and a whole weight."""
    sources = ORDER if "%order" in line and name_of(line) == "llm.take" else ""
    sources += SOURCES if "%w" in line and name_of(line).startswith("tensor.") else ""
    if name_of(line) == "tensor.experts":
        sources = STACKS
    if name_of(line) == "tensor.load_expert":
        sources = '%t = "tensor.packed_weight"() <{sources = ["t"], row = 0 : i64, column = 0 : i64, experts = 6 : i64}> : () -> !packed\n'
    results = "%result, %other" if ") -> (" in line else "%result"
    module, _ = parse_ir(f"{ALIASES}{sources}{results} = {line}")
    return module, next(op for op in module.function("test").block.ops if op.opname == name_of(line))


def others(type: Type) -> Iterator[tuple[str, Type]]:
    """Types that differ in one thing, and in which."""
    if isinstance(type, PackedType):
        yield "shape", replace(type, rows=type.rows * 2)
        yield "scheme", replace(type, scheme=None)
        yield "place", replace(type, local=not type.local)
        return
    assert isinstance(type, TensorType)
    shape = type.shape
    for axis, size in enumerate(shape):
        yield "shape", replace(type, shape=(*shape[:axis], size + 4, *shape[axis + 1 :]))
    yield "shape", replace(type, shape=(*shape, 1), layout=type.layout)
    for element in (F32, I32, BF16, F16):
        if element != type.element:
            yield "element", replace(type, element=element)
    if type.layout is not None:
        yield "place", replace(type, layout=None)
    places = [Lanes(axis) for axis in range(len(shape))] + [Replicated()]
    for layout in places:
        if layout != type.layout:
            yield "place" if type.layout is None else "layout", replace(type, layout=layout)


def test_every_op_with_results_is_here():
    with_results = {name for name, cls in OPS.items() if cls.schema.results and not name.startswith("toy.")}
    assert with_results - OTHERS == {name_of(line) for line in LINES}


@pytest.mark.parametrize("line", LINES, ids=name_of)
def test_a_result_of_another_type_is_refused_at_the_op(line):
    module, op = one_op(line)
    verify(module)
    accepted = []
    for result in op.results:
        right = result.type
        for what, wrong in others(right):
            result.type = wrong
            with pytest.raises(CompileError) as caught:
                verify(module)
            if caught.value.op is not op:  # the op takes it; only the function's return differs
                accepted.append((what, str(wrong)))
        result.type = right
    assert {what for what, _ in accepted} <= FREE.get(op.opname, set()), accepted
