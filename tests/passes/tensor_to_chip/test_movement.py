"""Ops that move arrays or name a part of one: what they give, and what would not work is refused."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F32
from dialects import tensor
from tests.passes.programs import EVERYWHERE, Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import RNG, check, normal


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


@pytest.mark.parametrize(("heads", "width"), [(1, 64), (6, 64), (64, 64), (5, 128), (2, 192)])
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


def test_a_vector_that_leaves_lanes_empty_is_refused():
    program = Program([normal(1, 1, 40)])
    program.finish(program.load(packed(2)))
    with pytest.raises(CompileError, match="a vector of 40 items cannot be spread over 64 lanes"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize(("start", "size"), [(0, 40), (0, 100), (32, 64)])
def test_a_part_of_a_vector_that_does_not_fill_the_lanes_is_not_stored(start, size):
    program = Program([normal(1, 1, 192)])
    x = program.add(tensor.SliceOp(program.load(packed(2)), starts=(0, 0, start), sizes=(1, 1, size)))
    program.finish(x)
    with pytest.raises(CompileError, match=r"'tensor\.s.* op would move data"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize("source", [EVERYWHERE, slots(2)])
def test_a_reshape_that_moves_data_is_refused(source):
    program = Program([normal(1, 1, 3840)])
    x = program.load(source)
    program.finish(program.make(tensor.ReshapeOp, x, type_=array((1, 80, 48), F32, slots(1))))
    with pytest.raises(CompileError, match=r"'tensor\.reshape' op makes .*, which lies in other lanes"):
        program.lower("tensor-to-chip")
