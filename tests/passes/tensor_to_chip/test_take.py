"""Items in another order: in both forms, the gathers give what numpy's indexing does."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16, UI16
from dialects import tensor
from tests.passes.programs import Program, array, packed, slots
from tests.passes.tensor_to_chip.lowered import BF, check, kinds, normal


def taken(shape: tuple[int, ...], layout: object, count: int) -> Program:
    order = np.random.default_rng(0).integers(0, shape[-1], count)
    program = Program([normal(*shape, dtype=BF)], weights={"order": order})
    x = program.load(layout)
    source = program.make(tensor.IndicesOp, source="order", type_=array((count,), UI16))
    index = program.make(tensor.LoadOp, source, type_=array((count,), UI16, packed(0)))
    return program.finish(program.add(tensor.TakeOp(x, index)))


@pytest.mark.parametrize("layout", [packed, slots])
@pytest.mark.parametrize(("width", "count"), [(64, 64), (192, 192), (4096, 4096), (128, 320), (320, 64)])
def test_of_one_row_over_the_lanes(layout, width, count):
    check(taken((1, 1, width), layout(2), count))


@pytest.mark.parametrize(("tokens", "width", "count"), [(5, 64, 64), (64, 192, 128), (150, 96, 320), (70, 50, 64)])
def test_of_many_rows(tokens, width, count):
    check(taken((1, tokens, width), slots(1), count))


@pytest.mark.parametrize(("tokens", "layout"), [(1, slots(2)), (70, slots(1))])
def test_a_part_of_a_wider_array(tokens, layout):
    """Its rows do not follow each other, or it starts behind the first row of lanes."""
    order = np.arange(128)[::-1]
    program = Program([normal(1, tokens, 256, dtype=BF)], weights={"order": order})
    part = program.add(tensor.SliceOp(program.load(layout), starts=(0, 0, 128), sizes=(1, tokens, 128)))
    source = program.make(tensor.IndicesOp, source="order", type_=array((128,), UI16))
    index = program.make(tensor.LoadOp, source, type_=array((128,), UI16, packed(0)))
    check(program.finish(program.add(tensor.TakeOp(part, index))))


def test_the_result_can_be_made_where_it_is_wanted():
    order = np.arange(64)[::-1]
    program = Program([normal(1, 70, 64, dtype=BF)], weights={"order": order})
    x = program.load(slots(1))
    source = program.make(tensor.IndicesOp, source="order", type_=array((64,), UI16))
    index = program.make(tensor.LoadOp, source, type_=array((64,), UI16, packed(0)))
    check(program.finish(program.add(tensor.ConcatOp(program.add(tensor.TakeOp(x, index)), x, axis=2))))


def test_one_gather_serves_all_rows():
    program = taken((1, 150, 64), slots(1), 64)
    program.lower("tensor-to-chip")
    assert kinds(program).count("gather.pl_gather_d1coor") == 1


def test_the_result_is_of_16_bit():
    program = taken((1, 1, 64), slots(2), 64)
    (op,) = (op for op in program.function.block.ops if isinstance(op, tensor.TakeOp))
    assert op.y.type == array((1, 1, 64), BF16, slots(2))
