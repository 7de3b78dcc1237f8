"""What the engines of each chip cost: the numbers behind `tiu.py` and `dma.py`.

The plain numbers are those of the vendor compiler's own static estimate (tpu_mlir 1.30.2), found by fitting
its output; nothing was measured on silicon. The cautious numbers add what that estimate leaves out and the
hardware cannot avoid: time to begin, latency of DDR, the work of a transpose. They come from the vendor's
BM1688 tables; for BM1684X they are an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compiler.target.chips import ChipSpec

# Which way a DMA command goes. On-chip SRAM counts as DDR.
LOAD, STORE, MOVE, LOCAL = "ddr->local", "local->ddr", "ddr->ddr", "local->local"

# Cycles that a TIU instruction takes before it works, by "family" or "family.kind"; cautious estimate only.
TIU_START = {
    "ar": 11,
    "pord": 10,
    "mm2.nn": 81,
    "mm2.nt": 56,
    "mm2.tt": 37,
    "mm": 32,
    "cmp": 9,
    "lin": 12,
    "rqdq": 11,
    "sg": 11,
    "sgl": 24,
    "sfu.rsqrt": 14,
    "sfu.normalize": 14,  # the series (sfu.taylor) begin at once
    "tsbc.cw_ts": 30,
    "tsbc.wc_ts": 30,
    "tsbc.l_copy": 27,
    "tsbc.l_bc": 27,
    "tsbc.s_bc": 3,
    "tsbc.s_distribute": 3,
}


@dataclass(frozen=True)
class Costs:
    """Cycles of one chip. `rate` is in cycles per byte; directions are the names above."""

    mhz: int  # of the cycles that estimates count; the slower engine's clock where the two differ
    matmul_block: tuple[int, int, int]  # rows, inner and columns of a matrix product done per cycle
    static_broadcast: int  # cycles of spreading static memory over the lanes
    free_self_copy: bool  # whether copying one item onto itself, as before a matrix product, costs nothing
    short_row: int  # bytes; a row of DDR costs at least as much as one of this length
    page: int  # bytes of DDR in a row on one channel; four channels take turns
    tensor_rate: Mapping[str, float]
    matrix_rate: Mapping[str, float]
    broadcast_rate: float
    gather_rate: float  # DDR to DDR; in the cautious estimate as a tensor's
    latency: Mapping[str, int]  # cycles added to every DMA command
    cautious_latency: Mapping[str, int]  # the same in the cautious estimate

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates per cycle of the matrix unit."""
        rows, inner, columns = self.matmul_block
        return rows * inner * columns

    def best_rate(self, direction: str) -> float:
        """The fewest cycles per byte of any command in that direction."""
        if direction == MOVE:
            return self.gather_rate
        return min(self.tensor_rate[direction], self.matrix_rate[direction])


def _same(loads: float, stores: float) -> dict[str, float]:
    """Rates by direction; a copy within DDR reads and writes, one within local memory stores."""
    return {LOAD: loads, STORE: stores, MOVE: loads + stores, LOCAL: max(loads, stores)}


BM1684X = Costs(
    mhz=1000,
    matmul_block=(64, 32, 4),
    static_broadcast=1,
    free_self_copy=False,
    short_row=256,
    page=4096,
    tensor_rate=_same(1.18482 / 64, 1.561803 / 64),  # 54.0 and 41.0 bytes per cycle
    matrix_rate=_same(1 / 58, 1 / 44),
    broadcast_rate=1 / 58,
    gather_rate=1 / 64,
    latency={LOAD: 0, STORE: 0, MOVE: 0, LOCAL: 0},
    # BM1688's at 750 MHz, in cycles of 1000 MHz.
    cautious_latency={LOAD: 387, STORE: 227, MOVE: 614, LOCAL: 227},
)

# The vendor's estimate charges some commands 0.06 cycles per byte; nothing in their fields tells which.
_RATE_1688 = 0.0375  # 26.7 bytes per cycle
BM1688 = Costs(
    mhz=750,
    matmul_block=(32, 16, 2),
    static_broadcast=3,
    free_self_copy=True,
    short_row=80,
    page=256,
    tensor_rate=_same(_RATE_1688, _RATE_1688),
    matrix_rate=_same(_RATE_1688, _RATE_1688),
    broadcast_rate=_RATE_1688,
    gather_rate=2 * _RATE_1688,
    latency={LOAD: 290, STORE: 170, MOVE: 290, LOCAL: 170},
    cautious_latency={LOAD: 290, STORE: 170, MOVE: 460, LOCAL: 170},
)

COSTS = {"bm1684x": BM1684X, "bm1688": BM1688}


def costs_of(spec: ChipSpec) -> Costs:
    """The costs of a chip, which follow from its instruction set."""
    return COSTS[spec.isa]
