"""Products and the weights that they take: what is computed, where it is added up, and what is copied."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F16, F32
from dialects import tensor
from tests.passes.programs import Program, array, slots
from tests.passes.tensor_to_chip.lowered import BF, check, kinds, normal


def test_a_linear_adds_to_its_accumulator_where_that_lies():
    program = Program([normal(1, 64, 32, dtype=BF), normal(32, 32, dtype=BF), normal(1, 64, 32)])
    x, w, start = (program.load(layout) for layout in (slots(1), slots(0), slots(1)))
    program.finish(program.make(tensor.LinearOp, x, w, start, type_=start.type)).lower("tensor-to-chip")
    assert kinds(program) == ["dma_matrix.copy", "dma.copy", "dma_matrix.copy", "matmul.nt", "dma_matrix.copy"]
    load, product = program.instructions()[2:4]
    assert product.accumulate
    assert product.operands[0] is load.operands[0]


@pytest.mark.parametrize("half", [BF16, F16])
@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("tokens", [70, 128, 1])
@pytest.mark.parametrize("inner", [192, 101])
def test_linear(half, accumulates, tokens, inner):
    outer = 130
    layout = slots(2) if tokens == 1 else slots(1)
    arrays = [normal(1, tokens, inner, dtype=half.numpy), normal(outer, inner, dtype=half.numpy)]
    program = Program([*arrays, normal(1, tokens, 192)] if accumulates else arrays)
    x, w = program.load(layout), program.load(slots(0))
    start = program.load(layout) if accumulates else None
    if start is not None:
        w = program.make(tensor.LoadOp, program.function.args[1], type_=w.type)
        start = program.add(tensor.SliceOp(start, starts=(0, 0, 0), sizes=(1, tokens, outer)))
    y = program.make(tensor.LinearOp, x, w, start, type_=array((1, tokens, outer), F32, layout))
    check(program.finish(y), 1e-6)


def test_a_sum_that_is_still_read_is_not_overwritten():
    program = Program([normal(1, 64, 32, dtype=BF), normal(32, 32, dtype=BF), normal(1, 64, 32)])
    x, w, start = program.load(slots(1)), program.load(slots(0)), program.load(slots(1))
    y = program.make(tensor.LinearOp, x, w, start, type_=start.type)
    program.finish(program.add(tensor.AddOp(y, start)))
    with pytest.raises(CompileError, match=r"overwrites its accumulator, which tensor\.add still reads"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("heads", "rows", "keys"), [(2, 64, 80), (3, 20, 130), (1, 100, 65)])
@pytest.mark.parametrize("width", [64, 50])
def test_matmul(transpose, heads, rows, keys, width):
    right = (keys, width) if transpose else (width, keys)
    program = Program([normal(heads, rows, width, dtype=BF), normal(*right, dtype=BF)])
    a, b = program.load(slots(1)), program.load(slots(0))
    y = program.make(
        tensor.MatmulOp, a, b, None, type_=array((heads, rows, keys), F32, slots(1)), transpose_b=transpose
    )
    check(program.finish(y), 1e-6)


@pytest.mark.parametrize(
    ("shape", "first", "rows", "products"),
    [
        ((3, 128, 64), 0, 128, 1),
        ((3, 64, 50), 0, 64, 1),
        ((3, 128, 64), 64, 64, 3),  # the next head's rows do not follow
        ((3, 192, 64), 0, 128, 3),
        ((3, 70, 64), 0, 70, 3),  # rows of lanes that are not full
    ],
)
def test_heads_whose_rows_follow_each_other_are_one_product(shape, first, rows, products):
    heads, _, width = shape
    program = Program([normal(*shape, dtype=BF), normal(80, width, dtype=BF)])
    a, b = program.load(slots(1)), program.load(slots(0))
    some = program.add(tensor.SliceOp(a, starts=(0, first, 0), sizes=(heads, rows, width)))
    y = program.make(tensor.MatmulOp, some, b, None, type_=array((heads, rows, 80), F32, slots(1)), transpose_b=True)
    check(program.finish(y), 1e-6)
    assert kinds(program).count("matmul.nt") == products


@pytest.mark.parametrize("rows", [40, 64, 130])
def test_a_right_operand_with_gaps_is_copied_if_the_unit_would_read_it_wrongly(rows):
    """Head 1 of 3 of [rows, heads, width]: within one row of lanes the matrix lies as it should."""
    program = Program([normal(20, 64, dtype=BF), normal(rows, 3, 64, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    head = program.add(tensor.SliceOp(b, starts=(0, 1, 0), sizes=(rows, 1, 64)))
    head = program.make(tensor.ReshapeOp, head, type_=array((rows, 64), BF16, slots(0)))
    program.finish(program.make(tensor.MatmulOp, a, head, type_=array((20, rows), F32, slots(0)), transpose_b=True))
    check(program, 1e-6)
    copies = [op for op in program.instructions() if op.attributes.get("kind") == "copy" and op.engine == "tiu"]
    assert len(copies) == (rows > 64)


@pytest.mark.parametrize("rows", [40, 70])
def test_a_right_operand_that_begins_within_an_eu_width_is_copied(rows):
    """Head 1 of 2 of [rows, heads, 80] begins 160 bytes into a lane."""
    program = Program([normal(20, 80, dtype=BF), normal(rows, 2, 80, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    head = program.add(tensor.SliceOp(b, starts=(0, 1, 0), sizes=(rows, 1, 80)))
    head = program.make(tensor.ReshapeOp, head, type_=array((rows, 80), BF16, slots(0)))
    program.finish(program.make(tensor.MatmulOp, a, head, type_=array((20, rows), F32, slots(0)), transpose_b=True))
    check(program, 1e-6)
    assert "ar.copy" in kinds(program)


def test_rows_on_the_last_lanes_and_the_first_of_the_next_row_are_two_products():
    """Heads 60 to 71 of 80, where the sums lie further apart than a matrix has them."""
    program = Program([normal(80, 64, dtype=BF), normal(30, 64, dtype=BF)])
    q, keys = program.load(slots(0)), program.load(slots(0))
    parts = []
    for first, count in ((0, 60), (60, 12), (72, 8)):
        some = program.add(tensor.SliceOp(q, starts=(first, 0), sizes=(count, 64)))
        type_ = array((count, 30), F32, slots(0))
        parts.append(program.make(tensor.MatmulOp, some, keys, type_=type_, transpose_b=True))
    whole = program.add(tensor.ConcatOp(*parts, axis=0))
    check(program.finish(program.make(tensor.PadOp, whole, type_=array((80, 50), F32, slots(0)), value=0.0)), 1e-6)
    assert kinds(program).count("matmul.nt") == 4


def test_a_right_operand_on_another_lane_is_brought_to_the_first():
    program = Program([normal(5, 64, dtype=BF), normal(3, 1, 64, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    row = program.add(tensor.SliceOp(b, starts=(2, 0, 0), sizes=(1, 1, 64)))
    row = program.make(tensor.ReshapeOp, row, type_=array((1, 64), BF16, slots(0)))
    check(program.finish(program.make(tensor.MatmulOp, a, row, type_=array((5, 1), F32, slots(0)), transpose_b=True)), 1e-6)
