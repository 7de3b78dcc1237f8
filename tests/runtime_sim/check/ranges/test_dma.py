"""Random DMA instructions touch what their ranges say, and nothing else."""

import random

import pytest

from compiler.target.isa import split_address
from tests.runtime_sim.check.programs import DDR
from tests.runtime_sim.check.ranges.memories import BF16, DDR_BYTES, F32, SPEC, Fields, check_random


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


FAMILIES = {make.__name__: make for make in (dma_tensor, dma_matrix, dma_general)}


@pytest.mark.parametrize("family", FAMILIES)
def test_random_instructions_touch_only_their_ranges(family):
    check_random(FAMILIES[family])
