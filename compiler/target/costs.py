"""What a chip's engines cost: what the numbers are that `timing/` reckons with. The numbers are each chip's.

The plain numbers are those of the vendor compiler's own static estimate (tpu_mlir 1.30.2), found by fitting
its output; nothing was measured on silicon. The cautious numbers add what that estimate leaves out and the
hardware cannot avoid: time to begin, latency of DDR, the work of a transpose. They come from the vendor's
BM1688 tables; for BM1684X they are an assumption. A cycle of the DMA is then one of its own clock, and cores
that share DDR get what they get of it on boards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Which way a DMA command goes. On-chip SRAM counts as DDR.
LOAD, STORE, MOVE, LOCAL = "ddr->local", "local->ddr", "ddr->ddr", "local->local"

# The vendor's table for BM1688 of `Costs.tiu_start`.
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
    """Cycles of one chip. `rate` is in cycles of the DMA per byte; directions are the names above."""

    tiu_start: Mapping[str, int]  # cycles before an instruction works, by "family" or "family.kind"; cautious
    matmul_block: tuple[int, int, int]  # rows, inner and columns of a matrix product done per cycle
    static_broadcast: int  # cycles of spreading static memory over the lanes
    free_self_copy: bool  # whether copying one item onto itself, as before a matrix product, costs nothing
    short_row: int  # bytes; a row of DDR costs at least as much as one of this length
    page: int  # bytes of DDR in a row on one channel; four channels take turns
    tensor_rate: Mapping[str, float]
    matrix_rate: Mapping[str, float]
    broadcast_rate: float
    gather_rate: float  # DDR to DDR; in the cautious estimate as a tensor's
    shared_rate: float | None  # cycles per byte of DDR that all cores get together; cautious. None: one core
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


def rates(loads: float, stores: float) -> dict[str, float]:
    """Rates by direction; a copy within DDR reads and writes, one within local memory stores."""
    return {LOAD: loads, STORE: stores, MOVE: loads + stores, LOCAL: max(loads, stores)}
