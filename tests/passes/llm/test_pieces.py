"""A piece of each op's result is what that piece of the whole result is, and is made of pieces."""

from __future__ import annotations

import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.verify import verify
from dialects import llm
from dialects.builtin import ModuleOp, ReturnOp
from passes.llm.partition import Part
from passes.llm.pieces import AXES, RULES
from passes.llm.shares import Parts, Plan
from passes.ranges import Range
from runtime_sim.interpret.rules import interpret
from tests.helpers import as_net, parse_ir
from tests.passes.llm.parts import random_weights

ALIASES = """
    !x = tensor<1x6x8xf32>
    !heads = tensor<1x4x6x8xf32>
    !kv = tensor<1x2x6x8xf32>
    !angles = tensor<1x1x6x8xf32>
    !w = tensor<12x8xf32>
"""
WEIGHTS = """
    %w = "llm.weight"() <{name = "w"}> : () -> !w
    %other = "llm.weight"() <{name = "v"}> : () -> !w
    %b = "llm.weight"() <{name = "b"}> : () -> tensor<12xf32>
    %rows = "llm.weight"() <{name = "rows"}> : () -> tensor<4x8xf32>
    %row = "llm.weight"() <{name = "row"}> : () -> tensor<8xf32>
"""
ATTENTION = (
    '"llm.attention"(%q, %k, %v) <{visible = #llm.visible<kind = "all">, scale = 0.25 : f64, '
    "operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (!heads, !kv, !kv) -> tensor<1x6x4x8xf32>"
)
# An op, and the axes along which a piece takes no more than pieces.
CASES = [
    ('"llm.act"(%x) <{kind = "silu"}> : (!x) -> !x', [0, 1, 2]),
    ('"llm.swiglu"(%x, %z) : (!x, !x) -> !x', [1, 2]),
    ('"llm.add"(%x, %r) : (!x, tensor<8xf32>) -> !x', [1, 2]),
    ('"llm.mul"(%x, %r) : (!x, tensor<1x6x1xf32>) -> !x', [1, 2]),
    ('"llm.rms_norm"(%x, %row) <{eps = 1.0e-6 : f64}> : (!x, tensor<8xf32>) -> !x', [1]),
    ('"llm.layer_norm"(%h, %rows, %rows) <{eps = 1.0e-6 : f64, operandSegmentSizes = array<i32: 1, 1, 1>}>'
     " : (tensor<1x6x4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<1x6x4x8xf32>", [1, 2]),
    ('"llm.softmax"(%x) <{axis = 1 : i64}> : (!x) -> !x', [2]),
    ('"llm.rope"(%q, %c, %s) <{rotary_dim = 8 : i64}> : (!heads, !angles, !angles) -> !heads', [1]),
    ('"llm.kv_concat"(%q, %n) : (!heads, !heads) -> tensor<1x4x12x8xf32>', [1]),
    ('"llm.linear"(%x, %w, %b, %r) <{operandSegmentSizes = array<i32: 1, 1, 1, 1>}>'
     " : (!x, !w, tensor<12xf32>, tensor<1x6x12xf32>) -> tensor<1x6x12xf32>", [2]),
    ('"llm.gated_linear"(%x, %w, %other, %b) <{operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>}>'
     " : (!x, !w, !w, tensor<12xf32>) -> tensor<1x6x12xf32>", [2]),
    ('"llm.permute"(%q) <{order = array<i64: 0, 2, 1, 3>}> : (!heads) -> tensor<1x6x4x8xf32>', [1, 2, 3]),
    ('"llm.reshape"(%x) <{shape = array<i64: 1, 6, 4, 2>}> : (!x) -> tensor<1x6x4x2xf32>', [1, 2]),
    ('"llm.slice"(%x) <{axis = 2 : i64, start = 2 : i64, stop = 8 : i64}> : (!x) -> tensor<1x6x6xf32>', [1, 2]),
    ('"llm.concat"(%x, %x) <{axis = 1 : i64}> : (!x, !x) -> tensor<1x12x8xf32>', [1, 2]),
    ('"llm.put"(%x, %z) <{axis = 1 : i64}> : (!x, !x) -> !x', [2]),
    ('"llm.broadcast"(%r) <{shape = array<i64: 1, 6, 8>}> : (tensor<1x6x1xf32>) -> !x', [1, 2]),
    ('"llm.pad"(%x) <{size = 10 : i64}> : (!x) -> tensor<1x6x10xf32>', [1]),
    (ATTENTION, [2]),
    ('"llm.matmul"(%x, %m) : (!x, tensor<1x8x5xf32>) -> tensor<1x6x5xf32>', []),
]  # fmt: skip


def made(line: str):
    module, _ = parse_ir(f"{ALIASES}{WEIGHTS}%y = {line}")
    as_net(module)
    function = module.functions()[0]
    return module, function, next(op for op in function.block.ops if op.opname == line.split('"')[1])


@pytest.mark.parametrize(("line", "axes"), CASES, ids=lambda each: each.split('"')[1] if isinstance(each, str) else "")
def test_a_piece_is_that_piece_of_the_whole(line, axes):
    module, function, op = made(line)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(arg.type.shape).astype(np.float32) for arg in function.args]
    function.terminator.set_operands([op.results[0]])
    function.update_type()
    weights = random_weights(module)
    (whole,) = interpret(function, inputs, weights)
    for axis, size in enumerate(whole.shape):
        for cut in [Range(0, 1), Range(size // 2, size), Range(1, 3)]:
            if cut.size and cut.stop <= size and cut.size < size:
                piece, taken = piece_of(function, op.results[0], axis, cut)
                (found,) = interpret(piece, inputs, weights)
                wanted = np.take(whole, range(cut.start, cut.stop), axis)
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
                if axis in axes and op.opname != "llm.reshape":
                    assert taken < op.results[0].type.size


def piece_of(function, value, axis: int, cut: Range):
    """A function that gives it, and the items of the largest result of the op's kind in it."""
    part = Part(function, Plan(), Parts("core", 1, 1), 0)
    part._take_arguments()
    part.add(ReturnOp(part.piece(value, axis, cut)))
    part.new.update_type()
    verify(ModuleOp.of(part.new))
    same = [op for op in part.new.block.ops if op.opname == value.owner.opname]
    return part.new, max((op.results[0].type.size for op in same), default=0)


def test_every_rule_is_here():
    tested = {type(made(line)[2]) for line, _ in CASES}
    alike = {rule: cls for cls, rule in AXES.items() if cls in tested}
    assert all(cls in tested or rule in alike for cls, rule in AXES.items())
    weights = {llm.WeightOp, llm.SliceWeightsOp, llm.ConcatWeightsOp}
    assert set(RULES) <= tested | weights


def test_rows_of_joined_weights_are_those_of_each():
    text = '%j = "llm.concat_weights"(%w, %other) : (!w, !w) -> tensor<24x8xf32>\n%y = "llm.act"(%j) <{kind = "silu"}> : (tensor<24x8xf32>) -> tensor<24x8xf32>'
    module, _ = parse_ir(f"{ALIASES}{WEIGHTS}{text}")
    as_net(module)
    function = module.functions()[0]
    joined = next(op for op in function.block.ops if isinstance(op, llm.ConcatWeightsOp))
    weights = random_weights(module)
    whole = np.concatenate([weights("w"), weights("v")])
    for axis, cut in ((0, Range(4, 20)), (0, Range(13, 15)), (1, Range(2, 6))):
        piece, _ = piece_of(function, joined.y, axis, cut)
        (found,) = interpret(piece, [], weights)
        np.testing.assert_array_equal(found, np.take(whole, range(cut.start, cut.stop), axis))


def test_a_piece_within_another_is_cut_off_it():
    _, function, op = made(CASES[0][0])
    part = Part(function, Plan(), Parts("core", 1, 1), 0)
    part._take_arguments()
    first = part.piece(op.results[0], 2, Range(2, 8))
    second = part.piece(op.results[0], 2, Range(4, 6))
    cut = second.defining(llm.SliceOp)
    assert cut is not None
    assert (cut.x, cut.start, cut.stop) == (first, 2, 4)
