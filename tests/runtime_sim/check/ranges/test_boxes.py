"""Tensors of known layout as boxes of bytes."""

import random
from itertools import product

import pytest

from compiler.target.spec import ChipSpec
from runtime_sim.check.ranges import Box, boxes, local_boxes
from runtime_sim.check.ranges.boxes import MAX_BOXES, Shape, packed_strides
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


def touched(address: int, shape: Shape, strides: Shape, nibbles: int, spec: ChipSpec) -> set[tuple[int, int]]:
    """(lane, byte) of every item, one by one."""
    start, offset = divmod(address, spec.lane_bytes)
    found = set()
    for n, c, h, w in product(*map(range, shape)):
        slot, lane = divmod(start + c, spec.lanes)
        at = 2 * offset + sum(i * stride * nibbles for i, stride in zip((n, slot, h, w), strides, strict=True))
        found |= {(lane, nibble // 2) for nibble in range(at, at + nibbles)}
    return found


@pytest.mark.parametrize("most", [MAX_BOXES, 8])
def test_boxes_hold_every_item_and_begin_and_end_with_one(monkeypatch, most):
    monkeypatch.setattr(boxes, "MAX_BOXES", most)
    rng = random.Random(most)
    for _ in range(100):
        shape = tuple(rng.randint(1, size) for size in (3, 140, 4, 6))
        strides = tuple(rng.choice([0, 1, 2, 6, 7, 24, 50]) for _ in range(4))
        nibbles = rng.choice([1, 2, 4, 8])
        address = rng.choice([0, 3, 63]) * CHIP.lane_bytes + 8 * rng.randint(0, 4)
        wanted = touched(address, shape, strides, nibbles, CHIP)
        found = {
            (lane, byte)
            for box in local_boxes(address, shape, strides, nibbles, CHIP)
            for lane in range(box.lane, box.lane_end)
            for byte in range(box.start, box.end)
        }
        assert wanted <= found
        assert {lane for lane, _ in wanted} == {lane for lane, _ in found}
        assert min(byte for _, byte in wanted) == min(byte for _, byte in found)
        assert max(byte for _, byte in wanted) == max(byte for _, byte in found)


def test_nothing_is_no_range():
    assert local_boxes(0, (1, 0, 1, 4), (0, 4, 4, 1), 4, CHIP) == []
    assert local_boxes(0, (1, 3, 0, 4), (0, 4, 4, 1), 4, CHIP) == []


@pytest.mark.parametrize(("channels", "lane", "slots"), [(64, 0, 1), (65, 0, 2), (64, 1, 2), (1, 63, 1)])
def test_packed_tensors_have_a_slot_for_each_round_of_the_lanes(channels, lane, slots):
    strides = packed_strides(lane * CHIP.lane_bytes, (2, channels, 3, 5), 16, CHIP)
    assert strides == (slots * 16, 16, 5, 1)
