"""Single instructions on a machine, and scalar arithmetic to compare with that shares no code with the simulator.

Tensors lie in local memory as section 2 of the chips' instruction reference says: channel c of a tensor that
starts on lane L is on lane (L + c) % lanes, in slot (L + c) // lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import ml_dtypes
import numpy as np

from compiler.target.chips import CHIPS
from compiler.target.isa import PRECISION, isa_for, split_address
from runtime_sim.machine.machine import Machine

TYPES = {
    "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "u8": np.uint8, "u16": np.uint16, "u32": np.uint32,
}  # fmt: skip
MODES = {0: "even", 1: "away", 2: "zero", 3: "down", 4: "up", 5: "half_up", 6: "half_down"}
Strides = Sequence[int]


def precision(dtype: str) -> int:
    return PRECISION[dtype.replace("u", "i")]


class Single:
    """A machine that executes one instruction at a time."""

    def __init__(self, chip: str = "bm1684x") -> None:
        self.spec = CHIPS[chip]
        self.isa = isa_for(self.spec)
        self.machine = Machine(self.spec)

    def run(self, name: str, kind: str, **fields: int) -> None:
        """Through bytes and back, so that the fields not given are 0 or the layout's defaults."""
        engine = "dma" if name.startswith("dma_") else "tiu"
        self.machine.run(self.isa.decode(engine, self.isa.encode(name, kind, fields)))

    def at(self, offset: int, lane: int = 0) -> int:
        return lane * self.spec.lane_bytes + offset

    def dma_local(self, offset: int, lane: int = 0) -> int:
        return self.spec.dma_local_base + self.at(offset, lane)

    def strides(self, layout: int, shape: Sequence[int], dtype: str, lane: int = 0) -> Strides:
        """Of layouts 0 aligned, 1 compact, 2 one value per channel; "line" is 4."""
        _, c, h, w = shape
        unit = self.spec.eu_bytes // np.dtype(TYPES[dtype]).itemsize
        if layout == 2:
            return (0, 1, 0, 0)
        row = math.ceil(w / unit) * unit if layout == 4 else w
        slot = math.ceil(h * row / unit) * unit if layout in (0, 4) else h * w
        return (math.ceil((lane + c) / self.spec.lanes) * slot, slot, row, 1)

    def put(self, address: int, values: np.ndarray, dtype: str, layout: int = 0, strides: Strides | None = None) -> None:
        """Store an array (n, c, h, w), item by item."""
        values = np.asarray(values, TYPES[dtype])
        for where, index in self._places(address, values.shape, dtype, layout, strides):
            data = np.frombuffer(values[index].tobytes(), np.uint8)
            self.machine.local.bytes[where : where + len(data)] = data

    def get(
        self, address: int, shape: Sequence[int], dtype: str, layout: int = 0, strides: Strides | None = None
    ) -> np.ndarray:
        """Load an array (n, c, h, w), item by item."""
        out = np.empty(tuple(shape), TYPES[dtype])
        for where, index in self._places(address, shape, dtype, layout, strides):
            out[index] = self.machine.local.bytes[where : where + out.itemsize].view(out.dtype)[0]
        return out

    def _places(self, address, shape, dtype, layout, strides):
        lane, offset = divmod(address, self.spec.lane_bytes)
        ns, cs, hs, ws = strides or self.strides(layout, shape, dtype, lane)
        item = np.dtype(TYPES[dtype]).itemsize
        for n, c, h, w in product(*map(range, shape)):
            slot, on = divmod(lane + c, self.spec.lanes)
            yield on * self.spec.lane_bytes + offset + item * (n * ns + slot * cs + h * hs + w * ws), (n, c, h, w)

    def ar(self, kind: str, a, b=None, result: str = "", types: Sequence[str] = ("f32", "f32"), **fields: int) -> list:
        """An AR instruction on two rows of values in one lane; a missing `b` leaves it out. Returns the results."""
        types = (types, types) if isinstance(types, str) else types
        result = result or types[0]
        shape = (1, 1, 1, len(a))
        names = ["opd0"] if b is None else ["opd0", "opd1"]
        for i, values in enumerate([a, b][: len(names)]):
            signed = int(not types[i].startswith("u"))
            own = {f"opd{i}_addr": 0x1000 * (i + 1), f"opd{i}_prec": precision(types[i]), f"opd{i}_sign": signed}
            fields = own | fields
            self.put(0x1000 * (i + 1), np.reshape(np.asarray(values, TYPES[types[i]]), shape), types[i])
        fields = {"tsk_opd_num": len(names)} | fields
        self.run("ar", kind, **sizes("res0", shape), res0_prec=precision(result), res0_addr=0x8000, **fields)
        return list(self.get(0x8000, shape, result).reshape(-1))

    def dma(self, kind: str, source: int, target: int, name: str = "dma_tensor", **fields: int) -> None:
        self.run(name, kind, **split_address("src", source), **split_address("dst", target), **fields)


def sizes(prefix: str, shape: Sequence[int]) -> dict[str, int]:
    return {f"{prefix}_{axis}": size for axis, size in zip("nchw", shape, strict=True)}


def dma_sizes(prefix: str, shape: Sequence[int], strides: Strides = ()) -> dict[str, int]:
    out = {f"{prefix}_{axis}size": size for axis, size in zip("nchw", shape, strict=True)}
    return out | {f"{prefix}_{axis}stride": size for axis, size in zip("nchw", strides, strict=False)}


def bits(value, dtype: str = "f32") -> int:
    """The bits of one value."""
    return int.from_bytes(np.asarray(value, TYPES[dtype]).tobytes(), "little")


def same_bits(got, want, dtype: str = "f32") -> None:
    """Equal items, the sign of zeros included; any NaN equals any NaN."""

    def show(value) -> str:
        return "nan" if math.isnan(value) else f"{bits(value, dtype):#x} ({value})"

    pairs = enumerate(zip(map(show, got), map(show, want), strict=True))
    wrong = [f"item {i}: {g}, expected {w}" for i, (g, w) in pairs if g != w]
    assert not wrong, "\n".join(wrong[:10])


def flush(x) -> np.float32:
    """f32 x; a zero of its sign when it is denormal."""
    x = np.float32(x)
    return np.copysign(np.float32(0), x) if 0 < abs(x) < np.float32(2.0**-126) else x


def bf16(x) -> np.float32:
    """f32 x rounded to the nearest bf16, ties to even, as an f32 again."""
    if math.isnan(x):
        return np.float32(np.nan)
    word = bits(x)
    upper, lower = word >> 16, word & 0xFFFF
    upper += lower > 0x8000 or (lower == 0x8000 and upper & 1)
    return np.array(upper << 16, np.uint32).view(np.float32)[()]


def from_bits(word: int) -> np.float32:
    return np.array(word, np.uint32).view(np.float32)[()]


def rounded(x: Fraction, mode: int) -> int:
    """x as an integer, by the rounding modes of casts and shifts."""
    down = math.floor(x)
    rest = x - down
    if rest in (0, Fraction(1, 2)) or mode in (2, 3, 4):
        up = {"even": down % 2 == 1, "away": x > 0, "zero": x < 0, "down": False, "up": True, "half_up": True, "half_down": False}
        return down + (rest != 0 and up[MODES[mode]])
    return down + (rest > Fraction(1, 2))


def clamp(x: int, dtype: str) -> int:
    return max(np.iinfo(TYPES[dtype]).min, min(int(np.iinfo(TYPES[dtype]).max), x))


def wrap(x: int, dtype: str) -> int:
    width = 8 * np.dtype(TYPES[dtype]).itemsize
    x %= 1 << width
    return x - (1 << width) if not dtype.startswith("u") and x >> (width - 1) else x


def spread(seed: int, count: int, decades: float = 4) -> np.ndarray:
    """f32 numbers of both signs and many magnitudes."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(count) * 10.0 ** rng.uniform(-decades, decades, count)).astype(np.float32)
