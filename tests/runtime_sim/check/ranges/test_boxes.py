"""Tensors of known layout as boxes of bytes."""

import pytest

from runtime_sim.check.ranges import Box, local_boxes
from tests.runtime_sim.check.programs import SPEC as CHIP


@pytest.mark.parametrize(
    ("address", "shape", "strides", "expected"),
    [
        (64, (1, 3, 1, 4), (0, 32, 4, 1), [Box(0, 3, 64, 72)]),
        (CHIP.lane_bytes * 62, (1, 4, 1, 4), (0, 32, 4, 1), [Box(62, 64, 0, 8), Box(0, 2, 64, 72)]),
        (0, (1, 130, 1, 4), (0, 4, 4, 1), [Box(0, 64, 0, 16), Box(0, 2, 16, 24)]),
        (0, (2, 1, 1, 4), (8, 4, 4, 1), [Box(0, 1, 0, 8), Box(0, 1, 16, 24)]),
        (0, (1, 1, 2, 2), (0, 0, 1, 16), [Box(0, 1, 0, 4), Box(0, 1, 32, 36)]),
        (0, (5, 1, 7, 1), (0, 0, 0, 0), [Box(0, 1, 0, 2)]),
    ],
)
def test_boxes_of_a_tensor(address, shape, strides, expected):
    assert local_boxes(address, shape, strides, 4, CHIP) == expected


def test_four_bit_items_take_half_a_byte():
    assert local_boxes(0, (1, 1, 1, 5), (0, 0, 0, 1), 1, CHIP) == [Box(0, 1, 0, 3)]
