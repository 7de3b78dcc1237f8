"""A machine to try single instructions on; tensors are put into its lanes item by item, by the rule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np

from compiler.target.chips import chip
from compiler.target.isa import PRECISION, Instruction, isa_for, split_address
from runtime_sim.machine.machine import Machine

X, B8 = chip("bm1684x"), chip("bm1688")
BF16 = np.dtype(ml_dtypes.bfloat16)
CODES = {
    np.dtype(np.int8): "i8",
    np.dtype(np.uint8): "i8",
    np.dtype(np.int16): "i16",
    np.dtype(np.uint16): "i16",
    np.dtype(np.int32): "i32",
    np.dtype(np.uint32): "i32",
    np.dtype(np.float16): "f16",
    np.dtype(np.float32): "f32",
    BF16: "bf16",
}
DDR = 0x1_0000_0000
LANE = 1 << 14  # bytes of a lane: small, so that a machine is made quickly
RNG = np.random.default_rng(0)
WIDTHS = [np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32)]


def code_of(dtype: np.dtype) -> int:
    return PRECISION[CODES[np.dtype(dtype)]]


class Board:
    """`put` and `take` go by the documented rule: lane (L + c) mod lanes, slot (L + c) div lanes."""

    def __init__(self, spec=X, exact=True) -> None:
        self.spec = spec
        self.machine = Machine(spec, lane_bytes=LANE, exact=exact)
        self.memory = self.machine.local.bytes.reshape(spec.lanes, LANE)
        self.ddr = np.zeros(1 << 16, np.uint8)
        self.machine.ddr.map(DDR if spec is X else spec.coeff_base, self.ddr, "ddr")

    def aligned(self, shape: Sequence[int], dtype, lane: int = 0) -> tuple[int, ...]:
        """Strides of the EU-aligned layout."""
        _, c, h, w = shape
        unit = self.spec.eu_bytes // np.dtype(dtype).itemsize
        slot = -(-h * w // unit) * unit
        return (-(-(lane + c) // self.spec.lanes) * slot, slot, w, 1)

    def _places(self, shape, strides, address, item) -> Iterator[tuple[tuple[int, ...], int, int]]:
        lane, base = divmod(address, LANE)
        ns, cs, hs, ws = strides
        for index in itertools.product(*map(range, shape)):
            n, c, h, w = index
            slot, where = divmod(lane + c, self.spec.lanes)
            yield index, where, base + item * (n * ns + slot * cs + h * hs + w * ws)

    def put(self, values: np.ndarray, address: int, strides: Sequence[int] | None = None) -> None:
        """Store values (n, c, h, w) at a local address."""
        strides = strides or self.aligned(values.shape, values.dtype, address // LANE)
        item = values.dtype.itemsize
        for index, lane, offset in self._places(values.shape, strides, address, item):
            self.memory[lane, offset : offset + item] = np.frombuffer(values[index].tobytes(), np.uint8)

    def take(self, shape, dtype, address: int, strides: Sequence[int] | None = None) -> np.ndarray:
        """Fetch values (n, c, h, w) from a local address."""
        out, item = np.empty(shape, dtype), np.dtype(dtype).itemsize
        strides = strides or self.aligned(shape, dtype, address // LANE)
        for index, lane, offset in self._places(shape, strides, address, item):
            out[index] = np.frombuffer(self.memory[lane, offset : offset + item].tobytes(), dtype)[0]
        return out

    def run(self, name: str, kind: str, **fields: int) -> None:
        """Execute one instruction; fields not given are what encoding would make of them."""
        isa = isa_for(self.spec)
        (instruction,) = isa.decode(
            "dma" if name.startswith("dma") else "tiu", isa.encode(name, kind, fields)
        )
        self.machine.execute(instruction)


def instruction(spec, name: str, kind: str, **fields: int) -> Instruction:
    isa = isa_for(spec)
    (made,) = isa.decode("dma" if name.startswith("dma") else "tiu", isa.encode(name, kind, fields))
    return made


def elementwise(kind, a, b=None, dtype=None, name="ar", spec=X, **fields):
    """res0 = kind(a, b) on flat arrays, spread over a few lanes; b may be a number, held in the instruction."""
    board = Board(spec)
    a = np.asarray(a)
    dtype = np.dtype(dtype or a.dtype)
    shape = (1, 5, 1, -(-a.size // 5))
    defaults = {"opd0_prec": code_of(a.dtype), "res0_prec": code_of(dtype), "opd1_addr": 4096}
    board.put(np.resize(a, shape), 0)
    if b is not None:
        b = np.asarray(b)
        defaults["opd1_prec"] = code_of(b.dtype)
        if b.ndim:
            board.put(np.resize(b, shape), 4096)
        else:
            defaults |= {"opd1_const": 1, "opd1_addr": int.from_bytes(b.tobytes(), "little")}
    defaults |= {f"opd{i}_sign": int(x.dtype.kind != "u") for i, x in enumerate((a, b)) if x is not None}
    defaults["tsk_opd_num"] = 1 if b is None else 2
    known = isa_for(spec).layout(name).fields
    usual = {key: value for key, value in (defaults | fields).items() if key in known}
    board.run(name, kind, **shape_fields(shape) | {"res0_addr": 8192} | usual)
    return board.take(shape, dtype, 8192).reshape(-1)[: a.size]


def shape_fields(shape, prefix="res0") -> dict[str, int]:
    return {f"{prefix}_{axis}": size for axis, size in zip("nchw", shape, strict=True)}


def stride_fields(prefix, strides) -> dict[str, int]:
    return {f"{prefix}_{axis}_str": s for axis, s in zip("nchw", strides, strict=True)}


def sizes(end, shape) -> dict[str, int]:
    return {f"{end}_{axis}size": s for axis, s in zip("nchw", shape, strict=True)}


def steps(end, strides) -> dict[str, int]:
    return {f"{end}_{axis}stride": s for axis, s in zip("nchw", strides, strict=True)}


def at(end, address) -> dict[str, int]:
    return split_address(end, address)


class Ddr:
    """A tensor in flat memory, found by its strides in items."""

    def __init__(self, board, dtype, strides, offset=0):
        self.items = board.ddr.view(dtype)
        self.strides = strides
        self.first = offset // np.dtype(dtype).itemsize
        self.address = (DDR if board.spec is X else board.spec.coeff_base) + offset

    def __setitem__(self, index, value):
        self.items[self._place(index)] = value

    def __getitem__(self, index):
        return self.items[self._place(index)]

    def _place(self, index):
        return self.first + sum(i * s for i, s in zip(index, self.strides, strict=True))

    def fill(self, values):
        for index in itertools.product(*map(range, values.shape)):
            self[index] = values[index]

    def read(self, shape):
        out = np.empty(shape, self.items.dtype)
        for index in itertools.product(*map(range, shape)):
            out[index] = self[index]
        return out


def anything(shape, dtype=np.uint32):
    """Bits at random, as unsigned integers."""
    return RNG.integers(0, 1 << 8 * np.dtype(dtype).itemsize, shape).astype(dtype)


def bits(x):
    return np.asarray(x).view({2: np.uint16, 4: np.uint32}[np.asarray(x).dtype.itemsize])


def words(rng, shape, dtype, spread):
    """Numbers over `spread` decades, many of them cancelling."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-spread, spread + 1, shape)
    return values.astype(np.float32).astype(dtype)


def local(board, lane, offset=0):
    """The DMA address of a place in a lane."""
    return board.spec.dma_local_base + lane * LANE + offset
