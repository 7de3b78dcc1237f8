"""The chips we compile for: one frozen record of numbers per chip, and the lookup by name.

Only facts that more than one part of the compiler needs are here. Timing constants live in `timing.py`,
instruction layouts in `isa_tables/`. A new chip is a new entry of `CHIPS`.

Sources, named in the comments below:
  [model] confirmed by running instructions on Sophgo's C-model (tpu_mlir 1.30.2);
  [defs]  read from the register definitions and architecture tables of the same release.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from compiler.diagnostics import UserError

KIB = 1024


@dataclass(frozen=True)
class ChipSpec:
    """Numbers of one chip. Sizes are bytes, addresses are byte addresses, unless a comment says otherwise."""

    name: str  # what the user writes after -c
    chip: str  # what the bmodel's `chip` field says
    isa: str  # which instruction tables the chip uses (compiler/isa_tables)

    cores: int  # TPU cores, each with its own lanes and pair of engines [defs]
    lanes: int  # lanes ("NPUs") of one core; a tensor's channels go round them [model]
    lane_bytes: int  # local memory of one lane [model]
    banks: int  # banks of one lane's local memory [model]
    bank_bytes: int  # size of one bank; banks * bank_bytes == lane_bytes [model]
    eu_bytes: int  # bytes that one lane's vector unit handles per cycle; the alignment of layout 0 [model]
    mm_k_block: int  # products that MM2 sums exactly before it rounds once to f32 [model]
    native_int4: bool  # AR instructions can read 4-bit items [model]

    static_bytes: int  # static memory (firmware's coefficient tables) [defs]
    l2_bytes: int  # usable on-chip SRAM behind the DMA [defs]

    dma_local_base: int  # what a DMA command adds to a local address; the TIU adds nothing [model]
    tiu_static_base: int  # what a TIU command adds to an offset in static memory [model]
    l2_base: int  # DMA address of the L2 SRAM [defs]
    ddr_base: int  # lowest DMA address that means DDR [model]
    coeff_base: int  # where a net's weights start in the addresses of a bmodel [model]
    neuron_base: int | None  # where scratch memory starts; None: right behind the weights and the I/O [model]
    io_base: int | None  # where I/O memory of its own (addr_mode 1) starts; None: behind the weights [model]
    io_tag: int  # set in the DMA address of I/O memory on top of the recorded one [model]

    command_ids: bool  # commands carry their own number (else it is their position) [model]
    dep_bits: int  # width of the field that names the other engine's command to wait for [defs]
    tiu_mhz: int  # clock of the vector and matrix engine; the vendor profiler's assumption [defs]
    dma_mhz: int  # clock of the DMA engine; the vendor profiler's assumption [defs]

    @property
    def local_bytes(self) -> int:
        """Local memory of one core."""
        return self.lanes * self.lane_bytes

    def eu_items(self, item_bytes: int) -> int:
        """Items of the given size that one lane handles per cycle."""
        return self.eu_bytes // item_bytes


BM1684X = ChipSpec(
    name="bm1684x",
    chip="BM1684X",
    isa="bm1684x",
    cores=1,
    lanes=64,
    lane_bytes=256 * KIB,
    banks=16,
    bank_bytes=16 * KIB,
    eu_bytes=64,
    mm_k_block=32,
    native_int4=False,
    static_bytes=16 * KIB,
    l2_bytes=0x1FB000,  # of a window of 2 MiB
    dma_local_base=0x0800_0000,
    tiu_static_base=0x0900_0000,
    l2_base=0x1000_0000,
    ddr_base=0x1_0000_0000,
    coeff_base=0x1_0000_0000,
    neuron_base=None,
    io_base=None,
    io_tag=0,
    command_ids=True,
    dep_bits=20,
    tiu_mhz=1000,
    dma_mhz=1000,
)

BM1688 = ChipSpec(
    name="bm1688",
    chip="BM1688",
    isa="bm1688",
    cores=2,
    lanes=32,
    lane_bytes=128 * KIB,
    banks=16,
    bank_bytes=8 * KIB,
    eu_bytes=16,
    mm_k_block=16,
    native_int4=True,
    static_bytes=64 * KIB,
    l2_bytes=2048 * KIB,
    dma_local_base=0,
    tiu_static_base=0,
    l2_base=0x1_0100_0000,
    ddr_base=0x80_0000_0000,  # bit 39; bits 38..36 pick a base register
    coeff_base=0x90_0000_0000,  # base register 1
    neuron_base=0xA0_0000_0000,  # base register 2
    io_base=0x1_0000_0000,
    io_tag=0x80_0000_0000,
    command_ids=False,
    dep_bits=24,
    tiu_mhz=900,
    dma_mhz=750,
)

# The vendor's tools give CV186AH BM1688's instructions and one core; its own clocks are not published.
CV186AH = dataclasses.replace(BM1688, name="cv186ah", chip="CV186X", cores=1)

CHIPS = {spec.name: spec for spec in (BM1684X, BM1688, CV186AH)}
ALIASES = {"cv186x": "cv186ah"}


def chip(name: str) -> ChipSpec:
    """The chip of that name, in any case; UserError names the known ones."""
    key = name.lower()
    spec = CHIPS.get(ALIASES.get(key, key))
    if spec is None:
        raise UserError(f"unknown chip '{name}': known chips are {', '.join(CHIPS)} (cv186x is cv186ah)")
    return spec
