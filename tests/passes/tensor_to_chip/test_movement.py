"""Ops that move arrays or name a part of one: what they give, and what would not work is refused."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F32
from dialects import tensor
from tests.passes.programs import EVERYWHERE, Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import BF, RNG, check, kinds, normal


def test_moves():
    """Slices, reshapes and permutes name places; nothing is computed."""
    program = Program([normal(1, 70, 96)])
    x = program.load(slots(1))
    heads = program.make(tensor.ReshapeOp, x, type_=array((1, 70, 4, 24), F32, slots(1)))
    swapped = program.add(tensor.PermuteOp(heads, order=(0, 2, 1, 3)))
    part = program.add(tensor.SliceOp(swapped, starts=(0, 1, 0, 8), sizes=(1, 2, 70, 16)))
    low = program.add(tensor.SliceOp(x, starts=(0, 64, 0), sizes=(1, 6, 96)))
    program.finish(part, low)
    check(program)
    assert {op.engine for op in program.instructions()} == {"dma"}


def test_pad():
    program = Program([normal(3, 66, 21)])
    x = program.add(tensor.MulOp(program.load(slots(1)), scalar=3.0))
    check(program.finish(program.make(tensor.PadOp, x, type_=array((3, 66, 32), F32, slots(1)), value=-7.0)))


@pytest.mark.parametrize(
    ("heads", "width"), [(1, 64), (6, 64), (64, 64), (5, 128), (2, 192), (71, 64), (130, 128)]
)
@pytest.mark.parametrize("element", [F32, BF16])
def test_relayout_there_and_back(heads, width, element):
    program = Program([normal(1, 1, heads * width, dtype=element.numpy)])
    row = program.load(slots(2))
    split = program.make(tensor.RelayoutOp, row, type_=array((1, 1, heads, width), element, slots(2)))
    back = program.make(tensor.RelayoutOp, split, type_=row.type)
    check(program.finish(split, back))


@pytest.mark.parametrize(
    ("count", "shape", "layout"),
    [(70, (1, 70, 32), None), (1, (1, 1, 32), EVERYWHERE), (70, (1, 70, 32), slots(1))],
)
def test_gather(count, shape, layout):
    program = Program([normal(90, 32), RNG.integers(0, 90, (1, count)).astype(np.int32)])
    table, ids = program.function.args
    check(program.finish(program.make(tensor.GatherOp, table, ids, type_=array(shape, F32, layout))))


@pytest.mark.parametrize("count", [1, 40, 64, 100, 1000, 4160, 5001])
@pytest.mark.parametrize("layout", [slots(2), packed(2)])
@pytest.mark.parametrize("element", [F32, BF16])
def test_a_vector_of_any_length_is_loaded_and_stored(count, layout, element):
    program = Program([normal(1, 1, count, dtype=element.numpy)])
    check(program.finish(program.load(layout)))
    commands = [op for op in program.instructions() if op.engine == "dma"]
    assert len(commands) == (2 if count < 64 or count % 64 == 0 else 4), "whole rows of lanes, and the rest"


@pytest.mark.parametrize(("start", "size"), [(0, 40), (0, 100), (64, 100), (32, 64), (32, 20), (100, 101), (191, 9)])
@pytest.mark.parametrize("layout", [slots(2), packed(2)])
def test_any_part_of_a_vector_is_a_vector(start, size, layout):
    """One that begins within a row of lanes is moved, to be added to those that do not."""
    program = Program([normal(1, 1, 201), normal(1, 1, size)])
    x, other = program.load(layout), program.load(packed(2))
    part = program.add(tensor.SliceOp(x, starts=(0, 0, start), sizes=(1, 1, size)))
    check(program.finish(program.make(tensor.AddOp, part, other, type_=other.type)))
    assert ("lanes.l_copy" in kinds(program)) == (start % 64 > 0)


def test_a_part_of_a_vector_that_nothing_reads_is_not_moved():
    program = Program([normal(1, 1, 201)])
    x = program.load(packed(2))
    program.add(tensor.SliceOp(x, starts=(0, 0, 32), sizes=(1, 1, 64)))
    program.finish(x).lower("tensor-to-chip")
    assert "lanes.l_copy" not in kinds(program)


@pytest.mark.parametrize("layout", [slots(2), packed(2)])
def test_vectors_of_any_lengths_are_joined(layout):
    program = Program([normal(1, 1, count) for count in (100, 70, 128, 1)])
    parts = [program.add(tensor.MulOp(program.load(layout), scalar=2.0)) for _ in range(4)]
    check(program.finish(program.add(tensor.ConcatOp(*parts, axis=2))))


def test_rows_with_gaps_are_copied_to_merge_them():
    """Heads of 50 lie 64 items apart, as matrices do."""
    program = Program([normal(3, 70, 50, dtype=BF16.numpy)])
    heads = program.add(tensor.PermuteOp(program.load(slots(1)), order=(1, 0, 2)))
    check(program.finish(program.make(tensor.ReshapeOp, heads, type_=array((70, 150), BF16, slots(0)))))


@pytest.mark.parametrize("source", [EVERYWHERE, slots(2)])
def test_a_reshape_that_moves_data_is_refused(source):
    program = Program([normal(1, 1, 3840)])
    x = program.load(source)
    program.finish(program.make(tensor.ReshapeOp, x, type_=array((1, 80, 48), F32, slots(1))))
    with pytest.raises(CompileError, match=r"'tensor\.reshape' op makes .*, which lies in other lanes"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize(("rows", "width"), [(1000, 1), (1000, 3), (40, 16)])
def test_rows_are_taken_out_of_a_table_and_put_back(rows, width):
    """On one lane, one after the other; of ids that name no row, zeros are taken, and nothing is put."""
    ids = RNG.permutation(rows)[:30].astype(np.int32)[None]
    ids[0, [3, 7]] = [rows, -1]
    program = Program([normal(rows, width), ids])
    table, index = (next(program.arguments) for _ in range(2))
    taken = program.make(tensor.GatherOp, table, index, type_=array((1, 30, width), F32, slots(0)))
    doubled = program.add(tensor.MulOp(taken, scalar=2.0))
    changed = program.add(tensor.ScatterOp(table, index, doubled))
    program.finish(changed, taken)
    found, rows_taken = program.interpreted()
    assert not rows_taken[0, [3, 7]].any()
    assert (found != program.inputs[0]).any(axis=1).sum() == 28
    check(program)


BROADCASTS = {  # shape and layout of an array, and of what it is repeated to
    "to heads on the lanes": (((1, 1, 1, 24), slots(2)), ((1, 5, 1, 24), slots(1))),
    "to more heads than lanes": (((1, 1, 1, 24), slots(1)), ((1, 71, 1, 24), slots(1))),
    "of every lane to heads": (((1, 1, 24), EVERYWHERE), ((1, 5, 24), slots(1))),
    "to heads of tokens": (((1, 1, 70, 24), slots(2)), ((1, 3, 70, 24), slots(2))),
}


@pytest.mark.parametrize("case", BROADCASTS)
@pytest.mark.parametrize("dtype", [np.float32, BF])
def test_axes_of_one_are_repeated(case, dtype):
    (shape, layout), (wide, target) = BROADCASTS[case]
    program = Program([normal(*shape, dtype=dtype)])
    x = program.load(layout)
    check(program.finish(program.make(tensor.BroadcastOp, x, type_=array(wide, x.type.element, target))))


def test_several_vectors_at_a_time_are_refused():
    program = Program([normal(2, 3, 128)])
    program.finish(program.load(slots(2)))
    with pytest.raises(CompileError, match=r"takes several vectors \[2, 3, 128\] to the lanes"):
        program.lower("tensor-to-chip")
