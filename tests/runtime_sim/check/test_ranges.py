"""Ranges against the machine: nothing else is written, and nothing else influences what is written."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compiler.target.isa import PRECISION, Instruction, split_address
from runtime_sim.check.ranges import Box, accesses, local_boxes
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from runtime_sim.machine.memory import FlatMemory
from tests.runtime_sim.check.programs import DDR, ISA
from tests.runtime_sim.check.programs import SPEC as CHIP

SPEC = replace(CHIP, lane_bytes=1 << 12, banks=1, bank_bytes=1 << 12)  # small lanes, so that all of local memory can be compared
DDR_BYTES = 1 << 16
F32, BF16, I8 = (PRECISION[name] for name in ("f32", "bf16", "i8"))
BYTES = {F32: 4, BF16: 2, I8: 1, PRECISION["i16"]: 2, PRECISION["i32"]: 4}

Fields = dict[str, int]


class Memories:
    """A machine full of noise, and the ranges of an instruction as masks over its memories."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ddr = FlatMemory()
        self.ddr = self._noise(rng, DDR_BYTES)
        ddr.map(DDR, self.ddr)
        self.machine = Machine(SPEC, lane_bytes=SPEC.lane_bytes, ddr=ddr)
        self.local = self.machine.local.bytes.reshape(SPEC.lanes, SPEC.lane_bytes)
        self.local[...] = self._noise(rng, self.local.size).reshape(self.local.shape)
        self.rng = rng

    @staticmethod
    def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
        """Bytes that are small numbers in every type: 16-bit patterns of bf16 around 1."""
        return rng.integers(0x3F00, 0x4100, size // 2).astype(np.uint16).view(np.uint8)

    def masks(self, instruction: Instruction, write: bool) -> tuple[np.ndarray, np.ndarray]:
        local, ddr = np.zeros(self.local.shape, bool), np.zeros(self.ddr.shape, bool)
        for access in accesses(instruction, SPEC):
            for box in access.boxes if access.write == write else []:
                if access.is_local:
                    local[box.lane : box.lane_end, box.start : box.end] = True
                else:
                    ddr[box.start - DDR : box.end - DDR] = True
        return local, ddr

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        return self.local.copy(), self.ddr.copy()

    def load(self, state: tuple[np.ndarray, np.ndarray]) -> None:
        self.local[...], self.ddr[...] = state

    def disturb(self, keep: tuple[np.ndarray, np.ndarray]) -> None:
        """Other noise wherever an instruction does not read."""
        for memory, kept in zip((self.local, self.ddr), keep, strict=True):
            noise = self._noise(self.rng, memory.size).reshape(memory.shape)
            memory[~kept] = noise[~kept]


def check(instruction: Instruction, seed: int) -> None:
    memories = Memories(seed)
    reads, writes = (memories.masks(instruction, write) for write in (False, True))
    before = memories.state()
    memories.machine.run([instruction])
    after = memories.state()
    for old, new, written in zip(before, after, writes, strict=True):
        assert not ((old != new) & ~written).any(), f"writes outside its ranges: {instruction}"
    memories.load(before)
    memories.disturb(reads)
    disturbed = memories.state()
    memories.machine.run([instruction])
    for start, new, wanted in zip(disturbed, memories.state(), after, strict=True):
        assert not ((new != wanted) & (new != start)).any(), f"reads outside its ranges: {instruction}"


def strides(rng: random.Random, operand: str, shape: tuple[int, ...]) -> Fields:
    """Free strides that keep the tensor small: permuted axes, gaps, and broadcast where read."""
    step, fields = rng.choice([1, 1, 2]), {}
    axes = list(zip("nhw", (shape[0], *shape[2:]), strict=True))
    rng.shuffle(axes)
    for axis, size in axes:
        fields[f"{operand}_{axis}_str"] = step if operand == "res0" else rng.choice([step, step, 0])
        step *= size + rng.choice([0, 0, 1])
    return fields | {f"{operand}_c_str": step, f"{operand}_str": 3}


def ar(rng: random.Random) -> tuple[str, str, Fields]:
    shape = (rng.randint(1, 2), rng.choice([1, 5, 63, 64, 65, 130]), rng.randint(1, 3), rng.randint(1, 9))
    lane = rng.choice([0, 0, 3, 60]) * SPEC.lane_bytes
    precision = rng.choice([F32, BF16])
    fields = {f"res0_{axis}": size for axis, size in zip("nchw", shape, strict=True)}
    for operand, offset in (("opd0", 0), ("opd1", 1344), ("res0", 2688)):
        fields |= {f"{operand}_addr": lane + offset, f"{operand}_prec": precision}
        code = rng.choice([0, 0, 1, 3] if operand == "res0" else [0, 1, 2, 3])
        fields |= strides(rng, operand, shape) if code == 3 else {f"{operand}_str": code}
    kind, count = rng.choice([("add", 2), ("mul", 2), ("copy", 1), ("max", 2)])
    return "ar", kind, fields | {"tsk_opd_num": count, "opd1_const": rng.choice([0, 0, 1])}


def cmp(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["gt_and_sel", "sel_gt", "sel_eq", "lt_and_sel", "sel_lt"])
    sizes = {"res0_n": 1, "res0_c": rng.choice([1, 64, 70]), "res0_h": 2, "res0_w": rng.randint(1, 20)}
    addresses = {
        f"{name}_addr": 512 * i for i, name in enumerate(("opd0", "opd1", "opd2", "opd3", "res0", "res1"))
    }
    codes = {"opd0_prec": F32, "opd2_prec": F32, "opd1_str": rng.choice([0, 3])}
    return "cmp", kind, sizes | addresses | codes


def mm2(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["nn", "nt", "tt"])
    m, k, n = rng.choice([1, 64, 66]), rng.randint(1, 40), rng.choice([1, 33, 65])
    rows, columns = (n, m) if kind == "tt" else (m, n)
    right = (k, n) if kind == "nn" else (n, k)
    fields = {
        "res0_c": rows,
        "res0_w": columns,
        "opd1_c": right[0],
        "opd1_w": right[1],
        "res_add": rng.choice([0, 1]),
    }
    addresses = {"opd0_addr": 0, "opd1_addr": 1024, "res0_addr": 2048}
    return "mm2", kind, fields | addresses | {"opd0_prec": BF16, "res0_prec": rng.choice([BF16, F32])}


def sfu(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["rsqrt", "taylor", "taylor_4x"])
    sizes = {
        "res0_n": rng.randint(1, 2),
        "res0_c": rng.choice([3, 64]),
        "res0_h": 2,
        "res0_w": rng.randint(1, 30),
    }
    addresses = {"opd0_addr": 0, "opd1_addr": 1024, "res0_addr": 2048}
    return "sfu", kind, sizes | addresses | {"opd0_prec": F32, "res0_prec": F32, "opd1_n": 5}


def pord(rng: random.Random) -> tuple[str, str, Fields]:
    h, w, kernel_h, kernel_w = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 2), rng.randint(1, 2)
    sizes = {
        "res0_n": 1,
        "res0_c": rng.choice([2, 64, 67]),
        "res0_h": h - kernel_h + 1,
        "res0_w": w - kernel_w + 1,
    }
    window = {
        "opd0_h": h,
        "opd0_w": w,
        "opd1_h": kernel_h,
        "opd1_w": kernel_w,
        "res_op_x_str": 1,
        "res_op_y_str": 1,
    }
    constants = {"opd1_const": 1, "opd3_const": 1, "opd1_addr": 0x3F800000}
    addresses = {"opd0_addr": 0, "res0_addr": 2048, "opd0_prec": F32, "res0_prec": F32}
    return "pord", rng.choice(["avgpooling", "maxpooling"]), sizes | window | constants | addresses


def tsbc(rng: random.Random) -> tuple[str, str, Fields]:
    kind = rng.choice(["cw_ts", "wc_ts", "l_copy", "l_bc"])
    c, w = rng.choice([1, 20, 64, 100]), rng.choice([1, 20, 64, 100])
    sizes = {"res0_n": 1, "res0_c": c, "res0_h": rng.choice([1, 2]), "res0_w": w, "opd0_c": w, "opd0_w": c}
    return "tsbc", kind, sizes | {"res0_prec": BF16, "opd0_addr": 0, "res0_addr": 2048}


def dma_tensor(rng: random.Random) -> tuple[str, str, Fields]:
    shape = (rng.randint(1, 2), rng.choice([1, 40, 64, 70]), rng.randint(1, 3), rng.randint(1, 9))
    ends = rng.choice([(0, DDR), (DDR, 0), (0, 2048), (DDR, DDR + DDR_BYTES // 2)])
    fields = _sides(*ends) | {"stride_enable": 1, "nchw_copy": 1, "src_data_format": rng.choice([BF16, F32])}
    for side in ("src", "dst"):
        inner = rng.choice([1, 2])
        h_str, c_str = inner * shape[3], inner * shape[3] * shape[2]
        fields |= {f"{side}_wstride": inner, f"{side}_hstride": h_str, f"{side}_cstride": c_str}
        fields |= {f"{side}_nstride": c_str * (shape[1] if DDR in ends else 2)}
        fields |= {f"{side}_{axis}size": size for axis, size in zip("nchw", shape, strict=True)}
    return "dma_tensor", "copy", fields


def dma_matrix(rng: random.Random) -> tuple[str, str, Fields]:
    rows, columns, width = rng.randint(1, 4), rng.randint(2, 200), rng.choice([1, 4, 16])
    load = rng.random() < 0.5
    outside, inside = ("src", "dst") if load else ("dst", "src")
    fields = _sides(DDR, 64) if load else _sides(64, DDR)
    fields |= {f"{outside}_hsize": rows, f"{outside}_wsize": columns, f"{outside}_hstride": columns + 3}
    slots = -(-columns // width // SPEC.lanes) + 1
    fields |= {f"{inside}_nsize": rows, f"{inside}_csize": -(-columns // width), f"{inside}_wsize": width}
    fields |= {f"{inside}_nstride": 32 * slots, f"{inside}_cstride": 32, "stride_enable": 1}
    return "dma_matrix", "copy", fields | {"src_data_format": BF16}


def dma_general(rng: random.Random) -> tuple[str, str, Fields]:
    broadcast = rng.random() < 0.5
    ends = (DDR + 128, 64) if broadcast else rng.choice([(DDR, 64), (64, DDR), (DDR, SPEC.lane_bytes - 32)])
    fields = _sides(*ends) | {"move_length": rng.randint(1, 100), "src_data_format": BF16}
    return "dma_general", "broadcast" if broadcast else "copy", fields | {"dst_csize": 40}


def _sides(source: int, target: int) -> Fields:
    """Addresses of both sides; those below the DDR are local."""
    base = SPEC.dma_local_base
    fields = {"localmem_mask_l32": 0xFFFFFFFF, "localmem_mask_h32": 0xFFFFFFFF}
    for side, address in (("src", source), ("dst", target)):
        fields |= split_address(side, address if address >= DDR else address + base)
    return fields


FAMILIES: dict[str, Callable[[random.Random], tuple[str, str, Fields]]] = {
    make.__name__: make for make in (ar, cmp, mm2, sfu, pord, tsbc, dma_tensor, dma_matrix, dma_general)
}


@pytest.mark.parametrize("family", FAMILIES)
def test_random_instructions_touch_only_their_ranges(family):
    rng, done = random.Random(family), 0
    for seed in range(30):
        name, kind, fields = FAMILIES[family](rng)
        (instruction,) = ISA.decode("dma" if "dma" in name else "tiu", ISA.encode(name, kind, fields))
        try:
            check(instruction, seed)
        except SimulationError:
            continue  # the machine refuses what the chip does not define
        done += 1
    assert done > 15


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
