"""Views of placed arrays, against numpy doing the same to an array of item offsets."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from compiler.target.chips.bm1684x import BM1684X
from dialects.tensor import Lanes, Replicated
from passes.tensor_to_chip.placed import CannotView, Placed, matching_axes
from tests.passes.tensor_to_chip.places import LANE_BYTES, fresh, item_offsets

SIZES = st.sampled_from([1, 1, 2, 3, 5, 8, 63, 64, 65, 130])


@st.composite
def places(draw: st.DrawFn) -> Placed:
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    assume(prod(shape) <= 40_000)
    axis = draw(st.integers(0, len(shape) - 1))
    return fresh(shape, draw(st.sampled_from([Lanes(axis), Lanes(axis, compact=True), Replicated()])))


@given(places())
def test_fresh_items_lie_apart_and_in_the_buffer(place):
    offsets = item_offsets(place)
    assert len(np.unique(offsets)) == offsets.size
    assert (offsets % LANE_BYTES).max() + 4 <= place.buffer.type.bytes
    assert place.buffer.type.bytes % BM1684X.eu_bytes == 0


@given(places(), st.data())
def test_slices_agree_with_numpy(place, data):
    bounds = [data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))) for n in place.shape]
    starts = [start for start, _ in bounds]
    sizes = [min(size, n - start) for (start, size), n in zip(bounds, place.shape, strict=True)]
    part = place.slice(starts, sizes)
    window = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    np.testing.assert_array_equal(item_offsets(part), item_offsets(place)[window])


@given(places())
def test_rows_of_lanes_beside_each_other_are_the_same_items(place):
    found = place.with_rows_beside()
    assert (found is None) == (place.axis is None or place.shape[place.axis] % place.lanes > 0)
    if found is not None:
        np.testing.assert_array_equal(item_offsets(found).ravel(), item_offsets(place).ravel())
        assert found.with_rows_joined().same_place(place)


@given(places(), st.data())
def test_permutes_agree_with_numpy(place, data):
    order = data.draw(st.permutations(range(len(place.shape))))
    np.testing.assert_array_equal(item_offsets(place.permute(order)), item_offsets(place).transpose(order))


def splits(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of `size` items."""
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    pairs = [(d, size // d) for d in divisors]
    return st.sampled_from([(size,), (1, size), (size, 1), *pairs])


@given(places(), st.data())
@settings(max_examples=100)
def test_reshapes_agree_with_numpy_or_are_refused(place, data):
    if data.draw(st.booleans()):  # a part, whose axes do not follow each other
        place = place.slice([0] * len(place.shape), [data.draw(st.integers(1, n)) for n in place.shape])
    shape = tuple(itertools.chain(*(data.draw(splits(n)) for n in regrouped(place.shape, data))))
    axis = None if place.axis is None else data.draw(st.integers(0, len(shape) - 1))
    try:
        view = place.reshape(shape, axis)
    except CannotView:
        return
    np.testing.assert_array_equal(item_offsets(view), item_offsets(place).reshape(shape))


def regrouped(shape: tuple[int, ...], data: st.DataObject) -> list[int]:
    """Some neighbouring axes merged."""
    out = [shape[0]]
    for size in shape[1:]:
        if data.draw(st.booleans()):
            out[-1] *= size
        else:
            out.append(size)
    return out


@pytest.mark.parametrize(
    ("shape", "axis", "to", "to_axis"),
    [
        ((1, 70, 96), 1, (1, 70, 4, 24), 1),
        ((70, 4, 24), 0, (1, 70, 96), 1),
        ((1, 4, 1, 64), 1, (4, 64), 0),
        ((4, 70, 24), 1, (1, 4, 70, 24), 2),
        ((1, 1, 192), 2, (192,), 0),
    ],
)
def test_reshapes_that_the_lowering_relies_on(shape, axis, to, to_axis):
    place = fresh(shape, Lanes(axis))
    np.testing.assert_array_equal(item_offsets(place.reshape(to, to_axis)), item_offsets(place).reshape(to))


@given(st.lists(SIZES, max_size=4), st.data())
def test_matching_axes_hold_equally_many_items(sizes, data):
    new = tuple(itertools.chain(*(data.draw(splits(n)) for n in sizes)))
    groups = matching_axes(tuple(sizes), new)
    assert [i for old, _ in groups for i in old] == list(range(len(sizes)))
    assert [i for _, found in groups for i in found] == list(range(len(new)))
    for old, found in groups:
        assert prod(sizes[i] for i in old) == prod(new[i] for i in found)
