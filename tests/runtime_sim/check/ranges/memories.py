"""Ranges against the machine: nothing else is written, and nothing else influences what is written."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from compiler.target.isa import PRECISION, Instruction
from runtime_sim.check.ranges import accesses
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.machine import Machine
from runtime_sim.machine.memory import FlatMemory
from tests.runtime_sim.check.programs import DDR, ISA
from tests.runtime_sim.check.programs import SPEC as CHIP

SPEC = replace(CHIP, lane_bytes=1 << 12, banks=1, bank_bytes=1 << 12)  # small lanes, so that all of local memory can be compared
DDR_BYTES = 1 << 16
F32, BF16 = PRECISION["f32"], PRECISION["bf16"]

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


def check_random(make: Callable[[random.Random], tuple[str, str, Fields]]) -> None:
    """Thirty instructions of a family, most of which the machine must take."""
    rng, done = random.Random(make.__name__), 0
    for seed in range(30):
        name, kind, fields = make(rng)
        (instruction,) = ISA.decode("dma" if "dma" in name else "tiu", ISA.encode(name, kind, fields))
        try:
            check(instruction, seed)
        except SimulationError:
            continue  # the machine refuses what the chip does not define
        done += 1
    assert done > 15
