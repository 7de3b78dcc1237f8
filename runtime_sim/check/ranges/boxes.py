"""Ranges of bytes, and how tensors of known layout become them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from compiler.sizes import round_up
from compiler.target.spec import ChipSpec

NIBBLES = {0: 2, 1: 4, 2: 8, 3: 4, 4: 8, 5: 4, 6: 1, 7: 8}  # of an item, by code of its precision; 7 is none
F32 = 2
SHAPES = 1 << 14  # to remember the boxes of
MAX_BOXES = 512  # of one operand; beyond it the gaps between the closest ones are taken too

Shape = tuple[int, int, int, int]  # n, c, h, w
Fields = dict[str, int]


class Box(NamedTuple):
    """Lanes [lane, lane_end), in each of them bytes [start, end)."""

    lane: int
    lane_end: int
    start: int
    end: int


class Tensor(NamedTuple):
    """How an operand lies; strides in items. In local memory the c stride is that of a lane's channels."""

    address: int  # in global memory, or lane * lane_bytes + offset
    shape: Shape
    strides: Shape
    nibbles: int  # of an item
    eu_aligned: bool  # whether its layout is one that begins on a multiple of the EU's bytes


@dataclass(frozen=True)
class Access:
    """What one operand touches."""

    operand: str  # field prefix: res0, opd0, src, dst, ...
    write: bool
    is_local: bool
    boxes: list[Box]
    tensor: Tensor | None = None  # None when its layout is not known


def local_boxes(address: int, shape: Shape, strides: Shape, nibbles: int, spec: ChipSpec) -> list[Box]:
    """A tensor whose channels go round the lanes from the address's lane on; strides in items.

    The c stride is that between two channels on one lane.
    """
    lane, offset = divmod(address, spec.lane_bytes)
    found = _boxes_from(lane, shape, strides, nibbles, spec.lanes)
    return [Box(first, end, start + offset, stop + offset) for first, end, start, stop in found]


@lru_cache(SHAPES)
def _boxes_from(lane: int, shape: Shape, strides: Shape, nibbles: int, lanes: int) -> list[Box]:
    """Those of a tensor at the start of a lane: many lie alike elsewhere."""
    n, c, h, w = shape
    n_str, c_str, h_str, w_str = strides
    boxes = []
    for first_lane, end_lane, slot, slots in lane_groups(lane, c, lanes):
        base = slot * c_str * nibbles
        loops = [(n, n_str), (slots, c_str), (h, h_str), (w, w_str)]
        for start, end in runs(loops, nibbles):
            boxes.append(Box(first_lane, end_lane, (base + start) // 2, (base + end + 1) // 2))
    return boxes


def lane_groups(lane: int, channels: int, lanes: int) -> Iterator[tuple[int, int, int, int]]:
    """(first lane, end lane, first slot, slots) of the groups of channels that lie on the same lanes."""
    slot = 0
    if lane:
        yield lane, min(lanes, lane + channels), 0, 1
        channels -= lanes - lane
        slot = 1
    full, rest = divmod(max(channels, 0), lanes)
    if full:
        yield 0, lanes, slot, full
    if rest:
        yield 0, rest, slot + full, 1


def runs(loops: list[tuple[int, int]], item: int) -> list[tuple[int, int]]:
    """Intervals covered by nested loops of (count, stride in items) over an item; close ones are joined."""
    run = item
    outer: list[tuple[int, int]] = []
    for count, stride in sorted(loops, key=lambda loop: loop[1]):
        if count <= 0:
            return []
        if count == 1 or stride == 0:
            continue
        if stride * item <= run or prod(inner for inner, _ in outer) * count > MAX_BOXES:
            run += (count - 1) * stride * item
            run += sum((inner_count - 1) * inner_stride for inner_count, inner_stride in outer)
            outer = []
        else:
            outer.append((count, stride * item))
    starts = [0]
    for count, step in outer:
        starts = [start + i * step for i in range(count) for start in starts]
    return [(start, start + run) for start in starts]


def packed_strides(address: int, shape: Shape, align: int, spec: ChipSpec) -> Shape:
    """Rows of h*w items back to back, channels of a lane at multiples of `align` items."""
    _, c, h, w = shape
    c_str = round_up(h * w, align)
    slots = -(-(address // spec.lane_bytes + c) // spec.lanes)
    return slots * c_str, c_str, w, 1


def eu_items(nibbles: int, spec: ChipSpec) -> int:
    return 2 * spec.eu_bytes // nibbles


Rule = Callable[[str, Fields, ChipSpec], Iterator[Access] | list[Access] | None]
