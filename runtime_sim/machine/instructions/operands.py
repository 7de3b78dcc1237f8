"""Operands of TIU instructions, from register fields to numpy views; the driver of elementwise ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.sizes import round_up
from compiler.target.isa import ALIGNED, COMPACT, PER_CHANNEL, PRECISION, STRIDED, Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import BF16, F16, F32
from runtime_sim.machine.memory import Pieces

Plan = Callable[[], None]  # an instruction made ready: calling it executes it
Shape = Sequence[int]  # n, c, h, w

I8, U8 = np.dtype(np.int8), np.dtype(np.uint8)
I16, U16 = np.dtype(np.int16), np.dtype(np.uint16)
I32, U32 = np.dtype(np.int32), np.dtype(np.uint32)
I64 = np.dtype(np.int64)
CHUNK_ITEMS = 1 << 15  # items of one operand worked on at once: a few f32 temporaries stay in cache
RAW: dict[int, DType] = {1: U8, 2: U16, 4: U32}  # bits of an item, by its bytes

_FLOATS: dict[int, DType] = {1: F16, 2: F32, 5: BF16}
_INTEGERS: dict[int, tuple[DType, DType]] = {0: (U8, I8), 3: (U16, I16), 4: (U32, I32)}


def dtype_of(code: int, signed: int = 1) -> DType:
    """The numpy type that a precision code and a sign bit mean."""
    if code in _FLOATS:
        return _FLOATS[code]
    if code in _INTEGERS:
        return _INTEGERS[code][bool(signed)]
    raise SimulationError(f"precision code {code} is not modelled")


def is_float(dtype: DType) -> bool:
    return dtype.itemsize > 1 and dtype in (F32, F16, BF16)


def raw_of(dtype: DType) -> DType:
    """The unsigned integer of the same width."""
    return RAW[dtype.itemsize]


def layout_strides(layout: int, shape: Shape, item: int, spec: ChipSpec, lane: int) -> tuple[int, ...]:
    """Strides in items of the layouts that need no stride fields; c counts slots."""
    _, c, h, w = shape
    if layout == PER_CHANNEL:
        return (0, 1, 0, 0)
    if layout not in (ALIGNED, COMPACT):
        raise SimulationError(f"layout code {layout} is not modelled")
    slot = h * w if layout == COMPACT else round_up(h * w, spec.eu_items(item))
    return (-(-(lane + c) // spec.lanes) * slot, slot, w, 1)


def line_strides(shape: Shape, item: int, spec: ChipSpec, lane: int) -> tuple[int, ...]:
    """Strides of the line-aligned layout, where every row starts on a multiple of the EU's bytes."""
    _, c, h, w = shape
    row = round_up(w, spec.eu_items(item))
    return (-(-(lane + c) // spec.lanes) * h * row, h * row, row, 1)


@dataclass(frozen=True)
class Operands:
    """Reads the operands of one instruction: `res0`, `opd0`, ... are prefixes of its fields."""

    core: Core
    instruction: Instruction

    @property
    def fields(self) -> dict[str, int]:
        return self.instruction.fields

    @property
    def result_shape(self) -> tuple[int, int, int, int]:
        f = self.fields
        return (f["res0_n"], f["res0_c"], f["res0_h"], f["res0_w"])

    def dtype(self, prefix: str) -> DType:
        """The type of an operand, by its precision and sign fields."""
        f = self.fields
        code = f[f"{prefix}_prec"]
        if code == PRECISION["i4"] and prefix == "opd0" and self.core.spec.native_int4:
            code = PRECISION["i8"]  # what `nibbles.unpack` makes of it
        return dtype_of(code, f.get(f"{prefix}_sign", 1))

    def strides(self, prefix: str, shape: Shape, dtype: DType) -> tuple[int, ...]:
        """Strides in items, from the layout code or from the stride fields."""
        f = self.fields
        layout = f.get(f"{prefix}_str", ALIGNED)
        if layout == STRIDED and f"{prefix}_n_str" in f:
            return tuple(f[f"{prefix}_{axis}_str"] for axis in "nchw")
        if layout == ALIGNED:
            self.check_alignment(prefix)
        return layout_strides(layout, shape, dtype.itemsize, self.core.spec, self.lane(prefix))

    def lane(self, prefix: str) -> int:
        """The lane that an operand starts on."""
        return self.core.local.start_lane(self.fields[f"{prefix}_addr"])

    def check_alignment(self, prefix: str) -> None:
        """SimulationError unless the operand's address is a multiple of the EU's bytes."""
        address, unit = self.fields[f"{prefix}_addr"], self.core.spec.eu_bytes
        if address % unit:
            raise SimulationError(f"{prefix} has layout 0 at {address:#x}, which is no multiple of {unit}")

    def tensor(self, prefix: str, shape: Shape, dtype: DType) -> Pieces:
        """The views of a tensor in local memory."""
        strides = self.strides(prefix, shape, dtype)
        return self.core.local.pieces(self.fields[f"{prefix}_addr"], shape, strides, dtype)

    def at(self, prefix: str, shape: Shape, strides: Sequence[int], dtype: DType) -> Pieces:
        """The views of a tensor with strides that the instruction implies."""
        return self.core.local.pieces(self.fields[f"{prefix}_addr"], shape, strides, dtype)

    def laid_out(self, prefix: str, shape: Shape, layout: int, dtype: DType) -> Pieces:
        """The views of a tensor in a layout that the instruction implies."""
        strides = layout_strides(layout, shape, dtype.itemsize, self.core.spec, self.lane(prefix))
        return self.at(prefix, shape, strides, dtype)

    def aligned(self, prefix: str, shape: Shape, dtype: DType) -> Pieces:
        """`laid_out` EU-aligned; SimulationError unless the operand's address is."""
        self.check_alignment(prefix)
        return self.laid_out(prefix, shape, ALIGNED, dtype)

    def lines(self, prefix: str, shape: Shape, dtype: DType) -> Pieces:
        """The views of a line-aligned tensor."""
        return self.at(
            prefix, shape, line_strides(shape, dtype.itemsize, self.core.spec, self.lane(prefix)), dtype
        )

    def constant(self, prefix: str, dtype: DType) -> Array:
        """The value held in an operand's address field, as an array of no dimensions."""
        bits = self.fields[f"{prefix}_addr"] & ((1 << 8 * dtype.itemsize) - 1)
        return np.array(bits, raw_of(dtype)).view(dtype)

    def source(self, prefix: str, dtype: DType, count: int) -> Pieces:
        """An elementwise operand, constant or tensor of the result's shape, in `count` pieces."""
        if self.fields.get(f"{prefix}_const"):
            return (self.constant(prefix, dtype),) * count
        self.check_lane(prefix)
        return self.tensor(prefix, self.result_shape, dtype)

    def check_lane(self, prefix: str) -> None:
        """SimulationError unless the operand starts on the result's lane, as the chip requires."""
        if self.lane(prefix) != self.lane("res0"):
            raise SimulationError(f"{prefix} and res0 start on different lanes")


def elementwise(result: Pieces, sources: Sequence[Pieces], function: Callable[..., Array]) -> Plan:
    """A plan that writes function(*sources) to result; all is read before anything is written.

    Lanes share no memory, so a tensor of one piece is done a few lanes at a time, as many as stay in cache.
    """
    if len(result) == 1:
        rows = _by_lanes(result[0], [source[0] for source in sources])
        if len(rows) == 1:
            return _one_row(rows[0], function)

        def run_in_turn() -> None:
            for target, *arguments in rows:
                target[...] = function(*arguments)

        return run_in_turn
    rows = list(zip(result, *sources, strict=True))

    def run() -> None:
        values = [function(*row[1:]).copy() for row in rows]  # what AR copy gives is a view of its source
        for row, value in zip(rows, values, strict=True):
            row[0][...] = value

    return run


def _one_row(row: Sequence[Array], function: Callable[..., Array]) -> Plan:
    target, *arguments = row

    def run() -> None:
        target[...] = function(*arguments)

    return run


def _by_lanes(target: Array, arguments: Sequence[Array]) -> list[tuple[Array, ...]]:
    """The views cut along the axis of lanes; constants have no axes."""
    lanes = target.shape[2]
    step = max(CHUNK_ITEMS * lanes // target.size, 1)
    return [
        tuple(x[:, :, i : i + step] if x.ndim else x for x in (target, *arguments))
        for i in range(0, lanes, step)
    ]


def gather_channels(pieces: Pieces) -> Array:
    """A tensor's pieces as one array (n, c, h, w); a copy when there are several."""
    flat = [p.reshape(p.shape[0], -1, *p.shape[3:]) for p in pieces]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def scatter_channels(pieces: Pieces, value: Array) -> None:
    """Write an array (n, c, h, w) into a tensor's pieces."""
    start = 0
    for piece in pieces:
        stop = start + piece.shape[1] * piece.shape[2]
        piece[...] = value[:, start:stop].reshape(piece.shape)
        start = stop
