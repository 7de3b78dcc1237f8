"""The memories a command can name: local memory (lanes x bytes) and mapped regions of flat memory.

Local tensors are seen through *pieces*. Channel c of a tensor that starts on lane L lives on lane (L + c) mod
lanes, in slot (L + c) div lanes; a piece is a run of channels that fills whole slots, or part of one slot, so
that it is one strided numpy view of shape (n, slots, lanes, h, w). Most tensors are one piece; none is more
than three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from runtime_sim.arrays import Array, Bytes, DType
from runtime_sim.machine.errors import SimulationError

Pieces = tuple[Array, ...]  # of a local tensor, as above

MOST_ITEMS = 1 << 31  # of a tensor in DDR; strides of zero make tensors without end
MOST_REPEATS = 4  # of local memory by one operand, for the same reason
POISON = 0xDEADBEEF  # what local memory holds before anything is written


@dataclass(frozen=True)
class Channels:
    """Channels [start, stop) of a tensor as a grid: `slots` rows from `slot`, `lanes` columns from `lane`."""

    start: int
    stop: int
    slot: int
    slots: int
    lane: int
    lanes: int


@lru_cache(maxsize=4096)
def split_channels(lane: int, channels: int, lanes: int) -> tuple[Channels, ...]:
    """Cut the channels of a tensor that starts on `lane` into at most three grids."""
    if lane + channels <= lanes:
        return (Channels(0, channels, 0, 1, lane, channels),)
    out: list[Channels] = []
    start = 0
    if lane:
        start = lanes - lane
        out.append(Channels(0, start, 0, 1, lane, start))
    slot, full = len(out), (channels - start) // lanes
    if full:
        out.append(Channels(start, start + full * lanes, slot, full, 0, lanes))
        start += full * lanes
    if start < channels:
        out.append(Channels(start, channels, slot + full, 1, 0, channels - start))
    return tuple(out)


class LocalMemory:
    """Local memory of one core: `bytes` is flat, lane after lane."""

    def __init__(self, lanes: int, lane_bytes: int) -> None:
        self.lanes = lanes
        self.lane_bytes = lane_bytes
        self.bytes: Bytes = np.full(lanes * lane_bytes // 4, POISON, np.uint32).view(np.uint8)

    def start_lane(self, address: int) -> int:
        """The lane that holds channel 0 of a tensor at this address."""
        return address // self.lane_bytes

    def pieces(
        self, address: int, shape: Sequence[int], strides: Sequence[int], dtype: DType
    ) -> Pieces:
        """Views (n, slots, lanes, h, w) of a tensor (n, c, h, w); strides in items, c stride by slot."""
        n, c, h, w = shape
        lane, offset = divmod(address, self.lane_bytes)
        self._check(lane, offset, shape, strides, dtype)
        item = dtype.itemsize
        ns, cs, hs, ws = (s * item for s in strides)
        return tuple(
            np.ndarray(
                (n, g.slots, g.lanes, h, w),
                dtype,
                self.bytes.data,
                g.lane * self.lane_bytes + offset + g.slot * cs,
                (ns, cs, self.lane_bytes, hs, ws),
            )
            for g in split_channels(lane, c, self.lanes)
        )

    def _check(
        self, lane: int, offset: int, shape: Sequence[int], strides: Sequence[int], dtype: DType
    ) -> None:
        """SimulationError unless every item of the tensor lies in its lane."""
        n, c, h, w = shape
        if min(shape) < 1:
            raise SimulationError(f"a tensor of shape {tuple(shape)} has no items")
        if math.prod(shape) > MOST_REPEATS * len(self.bytes):
            raise SimulationError(f"a tensor of shape {tuple(shape)} reads local memory over and over")
        if not 0 <= lane < self.lanes:
            raise SimulationError(f"local address {lane * self.lane_bytes + offset:#x} is in no lane")
        if offset % dtype.itemsize:
            raise SimulationError(f"local address {offset:#x} is not a multiple of {dtype.itemsize} bytes")
        slots = -(-(lane + c) // self.lanes)
        counts = (n, slots, h, w)
        last = sum((count - 1) * stride for count, stride in zip(counts, strides, strict=True))
        end = offset + (last + 1) * dtype.itemsize
        if end > self.lane_bytes:
            raise SimulationError(
                f"a tensor of shape {tuple(shape)} at {offset:#x} ends at byte {end}, "
                f"a lane has {self.lane_bytes}"
            )


@dataclass(frozen=True)
class Region:
    """Flat memory that commands see from `address` on; `data` is a 1-D uint8 array."""

    address: int
    data: Bytes
    name: str

    @property
    def end(self) -> int:
        return self.address + len(self.data)


class FlatMemory:
    """DDR (and L2): numpy arrays mapped at 40-bit addresses."""

    def __init__(self) -> None:
        self.regions: list[Region] = []

    def map(self, address: int, data: Array, name: str = "") -> None:
        """Make the bytes of a contiguous array visible from `address` on; writes go into the array itself."""
        if not data.flags.c_contiguous:
            raise ValueError("only contiguous arrays can be mapped")
        flat = data.reshape(-1).view(np.uint8)
        region = Region(address, flat, name)
        clash = next((r for r in self.regions if r.address < region.end and address < r.end), None)
        if clash is not None:
            raise ValueError(
                f"{region.end - address} bytes at {address:#x} overlap those at {clash.address:#x}"
            )
        self.regions.append(region)

    def view(self, address: int, shape: Sequence[int], strides: Sequence[int], dtype: DType) -> Array:
        """A view of the given shape, strides in items; no copy."""
        item = dtype.itemsize
        if math.prod(shape) > MOST_ITEMS:
            raise SimulationError(f"a tensor of shape {tuple(shape)} is more than one instruction can move")
        last = sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
        size = (last + 1) * item
        region = self._find(address, size)
        if address % item:
            raise SimulationError(f"DDR address {address:#x} is not a multiple of {item} bytes")
        return np.ndarray(
            tuple(shape), dtype, region.data.data, address - region.address, tuple(s * item for s in strides)
        )

    def _find(self, address: int, size: int) -> Region:
        for region in self.regions:
            if region.address <= address < region.end:
                if address + size > region.end:
                    raise SimulationError(
                        f"{size} bytes at {address:#x} end {address + size - region.end} bytes after region "
                        f"'{region.name}' ({region.address:#x} to {region.end:#x})"
                    )
                return region
        raise SimulationError(f"{size} bytes at {address:#x} are in no mapped memory")
