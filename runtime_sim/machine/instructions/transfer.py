"""Both ends of a DMA command: a tensor in local memory or in flat memory, and copies between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.target.isa import ALIGNED, Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import RAW, Plan, dtype_of, layout_strides
from runtime_sim.machine.memory import Channels, FlatMemory, LocalMemory, split_channels

Shape = tuple[int, int, int, int]  # n, c, h, w


@dataclass(frozen=True)
class Side:
    """A tensor (n, c, h, w) of a DMA command; strides in items, the c stride by slot in local memory."""

    memory: LocalMemory | FlatMemory
    address: int  # within the memory
    shape: Shape
    strides: Shape
    dtype: DType

    @property
    def lane(self) -> int | None:
        """The lane of channel 0, or None in flat memory."""
        if isinstance(self.memory, LocalMemory):
            return self.memory.start_lane(self.address)
        return None

    def pieces(self, grids: tuple[Channels, ...]) -> list[Array]:
        """Views (n, slots, lanes, h, w) of the given grids of channels."""
        if isinstance(self.memory, LocalMemory):
            return list(self.memory.pieces(self.address, self.shape, self.strides, self.dtype))
        return [self._flat_piece(self.memory, grid) for grid in grids]

    def _flat_piece(self, memory: FlatMemory, grid: Channels) -> Array:
        n, _, h, w = self.shape
        ns, cs, hs, ws = self.strides
        return memory.view(
            self.address + grid.start * cs * self.dtype.itemsize,
            (n, grid.slots, grid.lanes, h, w),
            (ns, grid.lanes * cs, cs, hs, ws),
            self.dtype,
        )

    def own_grids(self) -> tuple[Channels, ...]:
        """The grids that this side's memory needs."""
        c = self.shape[1]
        if isinstance(self.memory, LocalMemory):
            return split_channels(self.memory.start_lane(self.address), c, self.memory.lanes)
        return (Channels(0, c, 0, 1, 0, c),)

    def read(self) -> Array:
        """The values as one array (n, c, h, w)."""
        n, _, h, w = self.shape
        flat = [p.reshape(n, -1, h, w) for p in self.pieces(self.own_grids())]
        return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)

    def write(self, value: Array) -> None:
        """Store an array (n, c, h, w)."""
        for grid, piece in zip(self.own_grids(), self.pieces(self.own_grids()), strict=True):
            piece[...] = value[:, grid.start : grid.stop].reshape(piece.shape)


@dataclass(frozen=True)
class Transfer:
    """Reads the fields of one DMA command."""

    core: Core
    instruction: Instruction

    def __post_init__(self) -> None:
        f = self.instruction.fields
        mask = f.get("localmem_mask_h32", 0) << 32 | f.get("localmem_mask_l32", 0)
        lanes = (1 << self.core.spec.lanes) - 1
        if mask & lanes != lanes:
            raise SimulationError(f"a mask of lanes ({mask:#x}) is not modelled")

    @property
    def fields(self) -> dict[str, int]:
        return self.instruction.fields

    @property
    def dtype(self) -> DType:
        """Items are moved as bits; only their width counts."""
        return RAW[dtype_of(self.fields["src_data_format"]).itemsize]

    def sizes(self, end: str) -> Shape:
        """The n, c, h, w sizes of `src` or `dst`."""
        n, c, h, w = (self.fields[f"{end}_{axis}size"] for axis in "nchw")
        return n, c, h, w

    def side(
        self, end: str, shape: Shape, strides: Shape | None = None, dtype: DType | None = None
    ) -> Side:
        """One end, `src`, `dst` or `index`; strides not given are the command's, or its default layout's."""
        dtype = dtype or self.dtype
        memory, address = self.core.locate(self.instruction.address(end))
        if strides is None and self.fields["stride_enable"]:
            n, c, h, w = (self.fields[f"{end}_{axis}stride"] for axis in "nchw")
            strides = (n, c, h, w)
        if strides is None:
            strides = self._default_strides(memory, address, shape, dtype)
        return Side(memory, address, shape, strides, dtype)

    def _default_strides(
        self, memory: LocalMemory | FlatMemory, address: int, shape: Shape, dtype: DType
    ) -> Shape:
        """EU-aligned in local memory, row-major elsewhere."""
        _, c, h, w = shape
        if isinstance(memory, FlatMemory):
            return c * h * w, h * w, w, 1
        lane = memory.start_lane(address)
        n_stride, c_stride, *_ = layout_strides(ALIGNED, shape, dtype.itemsize, self.core.spec, lane)
        return n_stride, c_stride, w, 1

    def constant(self) -> Array:
        """The fill value, as an array of no dimensions."""
        bits = self.fields["constant_value"] & ((1 << 8 * self.dtype.itemsize) - 1)
        return np.array(bits, self.dtype)


def copy(target: Side, source: Side) -> Plan:
    """target = source, item by item; the shapes are equal."""
    if target.lane is not None and source.lane is not None and target.lane != source.lane:
        return lambda: target.write(source.read().copy())
    grids = source.own_grids() if target.lane is None else target.own_grids()
    pairs = list(zip(target.pieces(grids), source.pieces(grids), strict=True))
    if len(pairs) == 1:
        return lambda: np.copyto(*pairs[0])

    def run() -> None:
        for to, what in pairs:
            np.copyto(to, what)

    return run


def fill(target: Side, value: Array) -> Plan:
    """Every item of target = value."""
    pieces = target.pieces(target.own_grids())

    def run() -> None:
        for piece in pieces:
            piece[...] = value

    return run
