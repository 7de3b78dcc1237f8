"""Where each item of a placed array lies, worked out item by item from what `Placed` means."""

from __future__ import annotations

import numpy as np

from compiler.ir.types import F32, Attribute, TensorType
from compiler.target.chips.bm1684x import BM1684X
from dialects import chip
from dialects.tensor import Lanes
from passes.tensor_to_chip.placed import Placed, buffer_bytes, default_strides

LANE_BYTES = 1 << 24  # so far apart that offsets tell lanes from bytes


def item_offsets(place: Placed, lane_bytes: int = LANE_BYTES) -> np.ndarray:
    """Of each item: its lane times `lane_bytes`, plus the byte in the lane; lane 0 for what no lane owns."""
    offsets = np.full(place.shape, place.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(place.shape, place.strides, strict=True)):
        index, item = np.arange(size), place.dtype.bytes
        steps = index * stride * item
        if axis == place.axis:
            row, lane = np.divmod(place.lane + index, place.lanes)
            steps = row * stride * item + lane * lane_bytes
        offsets += steps.reshape([size if i == axis else 1 for i in range(len(place.shape))])
    return offsets


def fresh(shape: tuple[int, ...], layout: Attribute | None) -> Placed:
    """An array in a buffer of its own."""
    type_ = TensorType(shape, F32, layout)
    size = buffer_bytes(type_, BM1684X)
    buffer = chip.LocalOp(types=[chip.LocalType(size)]).results[0]
    axis = layout.axis if isinstance(layout, Lanes) else None
    return Placed(buffer, F32, shape, default_strides(type_, BM1684X), axis, BM1684X.lanes)
