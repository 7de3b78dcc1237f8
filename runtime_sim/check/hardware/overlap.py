"""Whether two operands share bytes, and whether they lie in the same places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array
from runtime_sim.check.ranges import Access, Box, Tensor, lane_groups

MAX_RUNS = 1 << 22  # of one operand, compared exactly; beyond it the gaps are taken too


def may_share(first: Access, second: Access) -> bool:
    """Whether the hulls of two operands of known layout meet."""
    if first.is_local != second.is_local or not (first.tensor and second.tensor):
        return False
    return _meets(_hull(first.boxes), _hull(second.boxes))


def _hull(boxes: Sequence[Box]) -> Box:
    if len(boxes) == 1:
        return boxes[0]
    lanes, lane_ends, starts, ends = zip(*boxes, strict=True)
    return Box(min(lanes), max(lane_ends), min(starts), max(ends))


def _meets(first: Box, second: Box) -> bool:
    return (
        first.start < second.end
        and second.start < first.end
        and first.lane < second.lane_end
        and second.lane < first.lane_end
    )


def place_of(tensor: Tensor, spec: ChipSpec) -> tuple[object, ...]:
    """What two tensors have in common that lie in place; strides that are never taken do not count."""
    n, c, h, w = tensor.shape
    slots = -(-(tensor.address // spec.lane_bytes + c) // spec.lanes)
    loops = zip((n, slots, h, w), tensor.strides, strict=True)
    taken = [stride for count, stride in loops if count > 1]
    return (tensor.address, tensor.shape, tensor.nibbles, *taken)


def share_bytes(first: Access, second: Access, spec: ChipSpec) -> bool:
    """Whether two operands have a byte in common; exact, where boxes are not."""
    return any(
        lane < other_end and other_lane < lane_end and _share(runs, other_runs)
        for lane, lane_end, runs in _lane_runs(first, spec)
        for other_lane, other_end, other_runs in _lane_runs(second, spec)
    )


Runs = tuple[Array, int]  # sorted starts and a length, in nibbles


def _lane_runs(access: Access, spec: ChipSpec) -> Iterator[tuple[int, int, Runs]]:
    """(lane, end lane, runs in each of them); global memory is one lane."""
    assert access.tensor
    address, (n, c, h, w), strides, nibbles, _ = access.tensor
    lane, offset, groups = 0, address, [(0, 1, 0, c)]
    if access.is_local:
        lane, offset = divmod(address, spec.lane_bytes)
        groups = list(lane_groups(lane, c, spec.lanes))
    for first_lane, end_lane, slot, slots in groups:
        start = 2 * offset + slot * strides[1] * nibbles
        yield first_lane, end_lane, _runs(start, (n, slots, h, w), strides, nibbles)


def _runs(start: int, counts: Sequence[int], strides: Sequence[int], nibbles: int) -> Runs:
    """The intervals that nested loops cover, those that touch joined where the strides say so."""
    starts, run = np.array([start], np.int64), nibbles
    for stride, count in sorted(zip(strides, counts, strict=True)):
        step = stride * nibbles
        if (len(starts) == 1 and step <= run) or len(starts) * count > MAX_RUNS:
            run += (count - 1) * step + int(starts[-1] - starts[0])
            starts = starts[:1]
        elif count > 1:
            starts = np.add.outer(np.arange(count, dtype=np.int64) * step, starts).reshape(-1)
    return np.sort(starts), run


def _share(first: Runs, second: Runs) -> bool:
    """Whether an interval of one meets one of the other: the first that ends behind its start decides."""
    (starts, run), (others, other_run) = first, second
    index = np.searchsorted(starts, others - run, side="right")
    found = index < len(starts)
    return bool((starts[index[found]] < others[found] + other_run).any())
