"""Arithmetic in every layout: the instructions compute what the tensor level says."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16, F16, F32
from dialects import tensor
from tests.passes.programs import EVERYWHERE, Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import check, normal

LAYOUTS = {  # shape and layout of a left operand
    "tokens": ((1, 70, 48), slots(1)),
    "a full row of tokens": ((1, 64, 32), slots(1)),
    "heads of tokens": ((3, 66, 20), slots(1)),
    "heads": ((6, 40), slots(0)),
    "a column": ((1, 1, 192), slots(2)),
    "a packed column": ((1, 1, 192), packed(2)),
    "a column with a part of a row": ((1, 1, 100), slots(2)),
    "a long one": ((1, 1, 1100), packed(2)),
    "less than a row": ((1, 1, 40), packed(2)),
    "more heads than lanes": ((71, 40), slots(0)),
    "everywhere": ((1, 24), EVERYWHERE),
    "packed rows": ((2, 70, 1), packed(1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [tensor.AddOp, tensor.SubOp, tensor.MulOp, tensor.MaxOp, tensor.MinOp])
def test_two_arrays(layout, kind):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape), normal(*shape)])
    check(program.finish(program.add(kind(program.load(where), program.load(where)))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_array_and_a_number(layout):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape)])
    x = program.load(where)
    check(program.finish(program.add(tensor.MulOp(x, scalar=0.3)), program.add(tensor.SubOp(x, scalar=2.0))))


BROADCASTS = {  # left, right: shape and layout
    "a row for all tokens": (((1, 70, 48), slots(1)), ((1, 1, 48), EVERYWHERE)),
    "a number per token": (((1, 70, 48), slots(1)), ((1, 70, 1), packed(1))),
    "a number per token, in slots": (((1, 70, 48), slots(1)), ((1, 70, 1), slots(1))),
    "a mask for all heads": (((4, 70, 30), slots(1)), ((1, 70, 30), slots(1))),
    "a row for all heads": (((6, 40), slots(0)), ((1, 40), EVERYWHERE)),
    "one number for a column": (((1, 1, 192), slots(2)), ((1, 1, 1), EVERYWHERE)),
    "one number for a long column": (((1, 1, 1100), packed(2)), ((1, 1, 1), EVERYWHERE)),
    "a row for more heads than lanes": (((71, 40), slots(0)), ((1, 40), EVERYWHERE)),
    "a number for each of them": (((71, 40), slots(0)), ((71, 1), slots(0))),
}


@pytest.mark.parametrize("case", BROADCASTS)
def test_broadcast(case):
    (left, left_layout), (right, right_layout) = BROADCASTS[case]
    program = Program([normal(*left), normal(*right)])
    check(program.finish(program.add(tensor.MulOp(program.load(left_layout), program.load(right_layout)))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [BF16, F16])
def test_casts(layout, half):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape), normal(*shape, dtype=half.numpy)])
    narrow = program.make(tensor.CastOp, program.load(where), type_=array(shape, half, where))
    wide = program.make(tensor.CastOp, program.load(where), type_=array(shape, F32, where))
    check(program.finish(narrow, wide))


@pytest.mark.parametrize(("source", "target"), [(slots(2), packed(2)), (packed(2), slots(2))])
def test_a_cast_packs_and_unpacks_a_column(source, target):
    program = Program([normal(1, 1, 192)])
    x = program.load(source)
    check(program.finish(program.make(tensor.CastOp, x, type_=array((1, 1, 192), BF16, target))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "sign", "tolerance"),
    [(tensor.Exp2Op, -9, 3e-6), (tensor.RsqrtOp, 1, 3e-7), (tensor.ReciprocalOp, 1, 3e-7)],
)
def test_functions(layout, kind, sign, tolerance):
    shape, where = LAYOUTS[layout]
    program = Program([sign * (0.01 + np.abs(normal(*shape)))])
    check(program.finish(program.add(kind(program.load(where)))), tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_powers_of_whole_numbers_are_exact(layout):
    shape, where = LAYOUTS[layout]
    x = -np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 300 - 150
    x.flat[:4] = [-1e30, -126, -127, 0]
    x = np.minimum(x, 0)
    program = Program([x])
    program.finish(program.add(tensor.Exp2WholeOp(program.load(where))))
    assert program.interpreted()[0].flat[:4].tolist() == [0, 2.0**-126, 0, 1]
    check(program)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_next_whole_number_above(layout):
    shape, where = LAYOUTS[layout]
    x = 100 * normal(*shape)
    x.flat[:6] = [-1e30, 8e29, -0.5, 0.5, 3, -20000.25]
    program = Program([x])
    program.finish(program.add(tensor.CeilOp(program.load(where))))
    assert program.interpreted()[0].flat[:6].tolist() == [np.float32(-1e30), np.float32(8e29), 0, 1, 3, -20000]
    check(program)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [tensor.SigmoidOp, tensor.NormalCdfOp])
def test_shares(layout, kind):
    shape, where = LAYOUTS[layout]
    x = 3 * normal(*shape)
    x.flat[:6] = [-1e30, 1e30, -300, 300, 0, -5]
    program = Program([x])
    check(program.finish(program.add(kind(program.load(where)))), 1e-5)


@pytest.mark.parametrize(("kind", "lowest", "tolerance"), [(tensor.SigmoidOp, -40, 2e-5), (tensor.NormalCdfOp, -5, 4e-5)])
def test_small_shares_are_as_exact_as_large_ones(kind, lowest, tolerance):
    """Relatively, so that x times its share is, too."""
    program = Program([np.linspace(lowest, 8, 64 * 400, dtype=np.float32).reshape(1, 64, 400)])
    program.finish(program.add(kind(program.load(slots(1)))))
    (wanted,) = program.interpreted()
    program.lower("tensor-to-chip")
    (found,) = program.executed()
    assert np.abs(found / wanted - 1).max() < tolerance


def test_what_is_far_below_has_no_share():
    program = Program([np.linspace(-200, -5, 64 * 100, dtype=np.float32).reshape(1, 64, 100)])
    x = program.load(slots(1))
    program.finish(program.add(tensor.MulOp(x, program.add(tensor.NormalCdfOp(x)))))
    program.lower("tensor-to-chip")
    (found,) = program.executed()
    assert np.abs(found).max() < 2e-6


@pytest.mark.parametrize("layout", ["tokens", "a column", "a packed column", "heads of tokens", "a long one"])
def test_gate(layout):
    shape, where = LAYOUTS[layout]
    gate, up = 20 * normal(*shape), normal(*shape)
    gate.flat[:4] = [-300, 300, -88, 0]
    program = Program([gate, up])
    check(program.finish(program.add(tensor.GateOp(program.load(where), program.load(where)))), 1e-5)


def test_a_part_of_each_row_is_reduced_from_a_copy():
    program = Program([normal(3, 70, 48)])
    part = program.add(tensor.SliceOp(program.load(slots(1)), starts=(0, 0, 16), sizes=(3, 70, 16)))
    check(program.finish(program.add(tensor.ReduceOp(part, kind="sum", axis=2))), 1e-6)


@pytest.mark.parametrize("kind", ["sum", "max"])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 70, 48), slots(1)),
        ((1, 70, 21), slots(1)),
        ((3, 66, 64), slots(1)),
        ((6, 80), slots(0)),
        ((1, 1, 192), packed(2)),
        ((1, 1, 192), slots(2)),
        ((1, 64), packed(1)),
        ((1, 1, 1000), slots(2)),
        ((1, 1, 1100), packed(2)),
        ((1, 1, 100), packed(2)),
        ((1, 40), packed(1)),
        ((71, 40), slots(0)),
        ((71, 32), slots(0)),
        ((1, 70, 1000), slots(1)),
        ((2, 70, 50), slots(1)),
        ((7, 40, 96), slots(1)),
        ((9, 64, 16), slots(1)),
        ((3, 256, 64), slots(1)),
    ],
)
def test_reduce(kind, shape, layout):
    program = Program([normal(*shape)])
    scale = 0.25 if kind == "sum" else 1.0
    op = tensor.ReduceOp(program.load(layout), kind=kind, axis=len(shape) - 1, scale=scale)
    total = program.add(op)
    if total.type.layout == EVERYWHERE:  # one number; a column shows that all lanes have it
        total = program.add(tensor.AddOp(program.add(tensor.MulOp(op.x, scalar=0.0)), total))
    check(program.finish(total), 1e-6)


@pytest.mark.parametrize(
    ("kind", "heads", "tokens", "pools", "halvings"),
    [
        ("max", 7, 64, 1, 4),
        ("max", 2, 64, 3, 0),
        ("max", 7, 128, 1, 4),
        ("max", 1, 512, 1, 4),
        ("max", 7, 70, 3, 0),
        ("sum", 7, 64, 2, 0),
    ],
)
def test_maxima_of_many_rows_in_a_lane_are_compared_by_halves(kind, heads, tokens, pools, halvings):
    program = Program([normal(heads, tokens, 512)])
    program.finish(program.add(tensor.ReduceOp(program.load(slots(1)), kind=kind, axis=2)))
    program.lower("tensor-to-chip")
    found = [op.opname for op in program.instructions()]
    assert (found.count("chip.pool"), found.count("chip.ar")) == (pools, halvings)


@pytest.mark.parametrize(("tokens", "heads"), [(70, 3), (1, 5), (1, 71)])
@pytest.mark.parametrize("width", [2, 50, 64, 80, 128])
@pytest.mark.parametrize("mode", ["half", "interleaved", "pairs_to_halves"])
def test_rope(tokens, heads, width, mode):
    decode = tokens == 1
    program = Program([normal(1, heads, tokens, width), normal(1, 1, tokens, 2 * width)])
    x, rows = program.load(slots(1 if decode else 2)), program.load(EVERYWHERE if decode else slots(2))
    check(program.finish(program.add(tensor.RopeOp(x, rows, mode=mode))), 1e-7)


@pytest.mark.parametrize("mode", ["half", "interleaved", "pairs_to_halves"])
def test_rope_of_a_part_beside_the_rest(mode):
    program = Program([normal(1, 3, 70, 48), normal(1, 1, 70, 32)])
    heads, rows = program.load(slots(2)), program.load(slots(2))
    turned = program.add(tensor.SliceOp(heads, starts=(0, 0, 0, 0), sizes=(1, 3, 70, 16)))
    rest = program.add(tensor.SliceOp(heads, starts=(0, 0, 0, 16), sizes=(1, 3, 70, 32)))
    turned = program.add(tensor.RopeOp(turned, rows, mode=mode))
    check(program.finish(program.add(tensor.ConcatOp(turned, rest, axis=3))), 1e-7)


@pytest.mark.parametrize("count", [1, 50, 64, 1000, 1030, 4096, 4097])
def test_argmax(count):
    values = normal(1, count)
    values[0, count // 2 :: 7] = values.max()  # several, of which the first counts
    program = Program([values])
    check(program.finish(program.add(tensor.ArgmaxOp(program.load(slots(1))))))
