"""How element-wise work is cut into instructions: each item once, with its own operands."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compiler.target.chips.bm1684x import BM1684X
from dialects import chip
from dialects.tensor import Lanes, Replicated
from passes.tensor_to_chip.emitter import pooling
from passes.tensor_to_chip.placed import Placed
from passes.tensor_to_chip.steps import Step, dma_steps, steps
from tests.passes.tensor_to_chip.places import LANE_BYTES, fresh, item_offsets

SIZES = st.sampled_from([1, 1, 2, 3, 4, 5, 17, 63, 64, 65, 128, 130, 1030, 1100])
LANES = BM1684X.lanes


def step_offsets(step: Step, operand: int, place: Placed, replicated: bool) -> np.ndarray:
    """The item offsets of one operand, in the order n, c, h, w of an instruction."""
    n, c, h, w = step.shape
    strides = step.strides[operand]
    lane = np.zeros(c, np.int64) if replicated else place.lane + np.arange(c)
    index = [np.arange(size) * stride for size, stride in zip((n, c, h, w), strides, strict=True)]
    index[1] = lane // LANES * strides[1]
    items = sum(np.ix_(*index)) * 4
    return items + (lane % LANES * LANE_BYTES)[None, :, None, None] + place.offset + step.offsets[operand]


@st.composite
def operands(draw: st.DrawFn) -> tuple[Placed, Placed]:
    """A result, and a source that broadcasts to it: both permuted views of fresh arrays."""
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=5)))
    assume(prod(shape) <= 9_000)
    axis = draw(st.integers(0, len(shape) - 1))
    order = draw(st.permutations(range(len(shape))))
    result = fresh(shape, draw(layouts(axis))).permute(order)
    kept = [draw(st.booleans()) or i == axis for i in range(len(shape))]
    narrow = tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))
    everywhere = draw(st.booleans())
    if everywhere:
        narrow = tuple(1 if i == axis else n for i, n in enumerate(narrow))
    return result, fresh(narrow, Replicated() if everywhere else draw(layouts(axis))).permute(order)


def layouts(axis: int) -> st.SearchStrategy[Lanes]:
    return st.sampled_from([Lanes(axis), Lanes(axis, compact=True)])


@given(operands())
@settings(max_examples=80)
def test_steps_cover_each_item_once_with_its_operand(pair):
    result, source = pair
    found = []
    for step in steps([result, source], BM1684X):
        assert min(step.shape) >= 1
        everywhere = source.axis is None
        found.append(
            np.stack(
                [
                    step_offsets(step, 0, result, False).reshape(-1),
                    np.broadcast_to(step_offsets(step, 1, source, everywhere), step.shape).reshape(-1),
                ]
            )
        )
    wanted = np.stack(
        [item_offsets(result).reshape(-1), np.broadcast_to(item_offsets(source), result.shape).reshape(-1)]
    )
    got = np.concatenate(found, axis=1)
    assert sorted(map(tuple, got.T.tolist())) == sorted(map(tuple, wanted.T.tolist()))


@given(operands(), st.booleans())
@settings(max_examples=50)
def test_dma_steps_pair_each_item_with_its_place_in_ddr(pair, to_ddr):
    local, _ = pair
    step, strides = 1, []
    for size in reversed(local.shape):
        strides.insert(0, step)
        step *= size
    ddr = Placed(local.buffer, local.dtype, local.shape, tuple(strides), None, LANES)
    ends = (ddr, local) if to_ddr else (local, ddr)
    found = []
    for step in dma_steps(*ends):
        n, c, h, w = step.shape
        index = [np.arange(size) * s for size, s in zip((n, c, h, w), step.strides[not to_ddr], strict=True)]
        linear = sum(np.ix_(*index)) * 4 + step.offsets[not to_ddr]
        found.append(
            np.stack([step_offsets(step, int(to_ddr), local, False).reshape(-1), linear.reshape(-1)])
        )
    wanted = np.stack([item_offsets(local).reshape(-1), np.arange(prod(local.shape)) * 4])
    got = np.concatenate(found, axis=1)
    assert sorted(map(tuple, got.T.tolist())) == sorted(map(tuple, wanted.T.tolist()))


def test_long_vectors_that_fill_no_rows_of_lanes_are_two_instructions():
    """Their whole rows at a time, and the rest; a short one has each row as a group of its own."""
    for count, shapes in {
        1000: [(1, 1000, 1, 1)],
        1024: [(1, 64, 1, 16)],
        1030: [(1, 64, 1, 16), (1, 6, 1, 1)],
    }.items():
        vector = fresh((1, count), Lanes(1, compact=True))
        assert [step.shape for step in steps([vector, vector], BM1684X)] == shapes


@pytest.mark.parametrize(("rows", "shape"), [(64, (1, 64, 3, 32)), (128, (3, 128, 1, 32))])
def test_heads_of_several_rows_of_lanes_are_taken_in_the_aligned_layout(rows, shape):
    """Where heads lie around the rows of lanes, they are n; those of one row are one after the other."""
    heads = fresh((3, rows, 32), Lanes(1))
    mask = fresh((1, rows, 32), Lanes(1))
    (step,) = steps([heads, heads, mask], BM1684X)
    assert step.shape == shape
    assert chip.same_layout(step.strides[0], shape, heads.view(()), BM1684X)


@pytest.mark.parametrize(
    ("columns", "rows", "cycles", "widths"),
    [
        (1, 1, 11, ()),
        (16, 1, 26, ()),  # further steps are shorter, but begin later
        (16, 9, 2 * (10 + 9 * 4), (4,)),
        (32, 1, 2 * 10 + 8 + 4, (4,)),
        (512, 9, 10 + 9 * 32 + 2 * (10 + 9 * 4), (16, 4)),
        (21, 1, 2 * 10 + 7 + 3, (3,)),
        (1009, 1, 10 + 1009, ()),
    ],
)
def test_rows_are_pooled_in_the_steps_that_are_fastest(columns, rows, cycles, widths):
    assert pooling(columns, rows, 16, 10) == (cycles, widths)
