"""Where values are made: parts and sums in the place of the whole, unless that would move data."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import F32
from dialects import tensor
from tests.passes.programs import EVERYWHERE, Program, array, slots
from tests.passes.tensor_to_chip.lowered import BF, check, kinds, normal


def test_parts_of_a_concatenation_are_made_in_their_place():
    program = Program([normal(1, 64, 32), normal(1, 64, 16)])
    parts = [program.add(tensor.MulOp(program.load(slots(1)), scalar=2.0)) for _ in range(2)]
    program.finish(program.add(tensor.ConcatOp(*parts, axis=2))).lower("tensor-to-chip")
    assert kinds(program) == ["dma_matrix.copy", "ar.mul", "dma_matrix.copy", "ar.mul", "dma_matrix.copy"]
    first, second = (op for op in program.instructions() if op.engine == "tiu")
    assert first.operands[0] is second.operands[0]
    assert second.res.offset == first.res.offset + 32 * 4


def test_sums_that_are_joined_are_built_in_place():
    """Each product is added to the one before where the whole lies; nothing is copied."""
    program = Program([normal(64, 32, dtype=BF), normal(32, 32, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    type_ = array((64, 32), F32, slots(0))
    sums = []
    for _ in range(2):
        first = program.make(tensor.MatmulOp, a, b, type_=type_)
        sums.append(program.make(tensor.MatmulOp, a, b, first, type_=type_))
    check(program.finish(program.add(tensor.ConcatOp(*sums, axis=1))), 1e-6)
    assert [op.opname for op in program.instructions() if op.engine == "tiu"] == ["chip.matmul"] * 4


@pytest.mark.parametrize(("axis", "layout"), [(0, slots(1)), (1, slots(1)), (2, slots(1)), (2, EVERYWHERE)])
def test_concat(axis, layout):
    shapes = [[2, 64, 16], [2, 64, 16]]
    shapes[1][axis] += {0: 1, 1: 6, 2: 16}[axis]
    program = Program([normal(*shape) for shape in shapes])
    loaded = [program.load(layout) for _ in shapes]
    made = [program.add(tensor.MulOp(x, scalar=2.0)) for x in loaded]
    whole = program.add(tensor.ConcatOp(*made, axis=axis))
    again = program.add(tensor.ConcatOp(*loaded, axis=axis))  # parts that lie elsewhere already
    check(program.finish(program.add(tensor.AddOp(whole, again))))


def test_operands_on_different_lanes_are_refused():
    program = Program([normal(1, 40, 16), normal(1, 16, 16)])
    x = program.add(tensor.SliceOp(program.load(slots(1)), starts=(0, 10, 0), sizes=(1, 16, 16)))
    program.finish(program.add(tensor.AddOp(x, program.load(slots(1)))))
    with pytest.raises(CompileError, match=r"'tensor\.add' op would move data: operands of add start on lanes 0, 10, 0"):
        program.lower("tensor-to-chip")
