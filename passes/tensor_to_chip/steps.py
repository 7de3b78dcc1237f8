"""Cover arrays with instructions, each of which iterates over four axes.

What covers an array depends on sizes and strides alone. A program has many arrays that agree in these, and
each case is worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

from compiler.ir.types import F32
from compiler.target.spec import ChipSpec
from dialects.chip import Shape4
from passes.tensor_to_chip.placed import Form, Placed

MAX_STRIDE_AXES = 3  # n, h and w; the fourth, c, runs over the lanes
FORMS = 4096  # to remember

Axis = tuple[int, tuple[int, ...]]  # its size, and its stride in each array


@dataclass(frozen=True)
class Step:
    """One instruction's share of an iteration: the 4-D shape, and each operand's byte offset and strides."""

    shape: Shape4
    offsets: tuple[int, ...]
    strides: tuple[Shape4, ...]


def steps(arrays: Sequence[Placed], spec: ChipSpec) -> tuple[Step, ...]:
    """Cover the first array's shape with instructions: an axis over the lanes, three others, more unrolled.

    The whole rows of lanes of a vector over the lanes are taken as one row with several items per lane. What
    is left of it is a second instruction, where the first then saves more than that costs.
    """
    return _steps(tuple([x.form for x in arrays]), spec)


def dma_steps(dst: Placed, src: Placed) -> tuple[Step, ...]:
    """As `steps`; in DDR the axis over the lanes steps by its own stride."""
    return _dma_steps((dst.form, src.form))


@lru_cache(FORMS)
def _steps(arrays: tuple[Form, ...], spec: ChipSpec) -> tuple[Step, ...]:
    first = arrays[0]
    axis = first.axis
    channels = spec.lanes if axis is None else first.shape[axis]
    lane_strides = [0 if axis is None or x.axis is None else x.strides[axis] for x in arrays]
    rows, rest = divmod(channels, spec.lanes)
    vector = axis is not None and prod(first.shape) == channels and not first.lane
    if not vector or rows < (spec.eu_items(F32.bytes) if rest else 2):
        return tuple(_cover(arrays, axis, channels, lane_strides))
    zeros = (0,) * len(arrays)
    whole = Step((1, spec.lanes, 1, rows), zeros, tuple((0, 0, 0, stride) for stride in lane_strides))
    if not rest:
        return (whole,)
    offsets = tuple(rows * s * x.item_bits // 8 for s, x in zip(lane_strides, arrays, strict=True))
    return whole, Step((1, rest, 1, 1), offsets, tuple((0, stride, 0, 1) for stride in lane_strides))


@lru_cache(FORMS)
def _dma_steps(arrays: tuple[Form, Form]) -> tuple[Step, ...]:
    axis = next((x.axis for x in arrays if x.axis is not None), None)
    if axis is None:
        return tuple(_cover(arrays, None, 1, [0, 0]))
    return tuple(_cover(arrays, axis, arrays[0].shape[axis], [x.strides[axis] for x in arrays]))


def _cover(
    arrays: Sequence[Form], axis: int | None, channels: int, lane_strides: list[int]
) -> Iterator[Step]:
    axes = _collapse([a for a in range(len(arrays[0].shape)) if a != axis], arrays)
    unrolled, kept = axes[: max(0, len(axes) - MAX_STRIDE_AXES)], axes[-MAX_STRIDE_AXES:]
    if not kept:
        kept = [(1, (1,) * len(arrays))]  # the DMA does not accept a w stride of 0
    none: Axis = (1, (0,) * len(arrays))
    if len(kept) == 2 and around_lane_rows(kept[0], lane_strides):
        kept.insert(1, none)
    while len(kept) < MAX_STRIDE_AXES:
        kept.insert(0, none)
    (n, ns), (h, hs), (w, ws) = kept
    strides = tuple(zip(ns, lane_strides, hs, ws, strict=True))
    for index in product(*(range(size) for size, _ in unrolled)):
        offsets = tuple(
            sum(i * s[k] for i, (_, s) in zip(index, unrolled, strict=True)) * x.item_bits // 8
            for k, x in enumerate(arrays)
        )
        yield Step((n, channels, h, w), offsets, strides)


def around_lane_rows(axis: Axis, lane_strides: list[int]) -> bool:
    """Whether an axis steps over all rows of lanes, as n does and h does not in the aligned layout: operands
    that are in none take twice as long, or must be copied.
    """
    return 0 < lane_strides[0] < axis[1][0]


def _collapse(axes: Sequence[int], arrays: Sequence[Form]) -> list[Axis]:
    """Each axis, with those merged that follow each other in all arrays."""
    merged: list[Axis] = []
    for axis in axes:
        size = arrays[0].shape[axis]
        if size == 1:
            continue
        strides = tuple(0 if x.shape[axis] == 1 else x.strides[axis] for x in arrays)
        if merged and all(outer == size * inner for outer, inner in zip(merged[-1][1], strides, strict=True)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    return merged
