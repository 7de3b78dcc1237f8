"""What is known of one chip: a frozen record of its numbers, its instructions and what they cost.

Every field is read by more than one chip's programs or tools: what a chip does differently from another is a
number or a flag here, never its name in the code. `compiler/target/chips/` holds the records.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.target.costs import Costs
from compiler.target.layout import Layout

KIB = 1024


@dataclass(frozen=True, eq=False)
class ChipSpec:
    """One chip. Sizes are bytes, addresses are byte addresses, unless a comment says otherwise.

    Sources, named in the comments:
      [model] confirmed by running instructions on Sophgo's C-model (tpu_mlir 1.30.2);
      [defs]  read from the register definitions and architecture tables of the same release;
      [file]  read from files that the same release compiled.
    """

    name: str  # what the user writes after -c; the name of the chip's file
    chip: str  # what the bmodel's `chip` field says [file]
    bmodel_tail: str  # how the names of its bmodels end, with {devices} and {cores} [file]
    streams_per_core: bool  # a bmodel lists command streams by core, below `sub_net`; else in the net [file]

    cores: int  # TPU cores, each with its own lanes and pair of engines [defs]
    lanes: int  # lanes ("NPUs") of one core; a tensor's channels go round them [model]
    lane_bytes: int  # local memory of one lane [model]
    banks: int  # banks of one lane's local memory [model]
    bank_bytes: int  # size of one bank; banks * bank_bytes == lane_bytes [model]
    eu_bytes: int  # bytes that one lane's vector unit handles per cycle; the alignment of layout 0 [model]
    mm_k_block: int  # products that MM2 sums exactly before it rounds once to f32 [model]

    static_bytes: int  # static memory (firmware's coefficient tables) [defs]
    exp_table: int  # offset in it of the series of exp, 1 / k! in f32; as the next two from libsophon
    log_table: int  # offset of the series of log(1 + x)
    index_table: int  # offset of the numbers from 0 to 63
    l2_bytes: int  # usable on-chip SRAM behind the DMA [defs]

    dma_local_base: int  # what a DMA command adds to a local address; the TIU adds nothing [model]
    tiu_static_base: int  # what a TIU command adds to an offset in static memory [model]
    l2_base: int  # DMA address of the L2 SRAM [defs]
    ddr_base: int  # lowest DMA address that means DDR [model]
    coeff_base: int  # where weights start [model]
    neuron_base: int | None  # where scratch memory starts; None: behind weights and I/O [model]
    io_base: int | None  # a bmodel's I/O memory of its own (addr_mode 1); None: behind the weights [file]
    io_tag: int  # what DMA commands add to the addresses of I/O memory of its own [file]

    tiu_mhz: int  # clock of the vector and matrix engine, and of the cycles that the vendor counts [file]
    dma_mhz: int  # clock of the DMA engine; the vendor profiler's assumption [defs]

    command_ids: bool  # commands carry their own number (else it is their position) [model]
    native_int4: bool  # AR instructions can read 4-bit items [model]
    products_with_bias: bool  # MM2 adds what opd2 names unless that is a constant [model]
    integer_products: bool  # the simulator knows what MM2 does with integers
    pools_tell_where: bool  # PorD max and min store positions at opd2_addr unless it is all ones [model]
    pools_keep_first: bool  # of values neither of which is greater, pooling keeps the earlier one [model]
    checked_roots: bool  # division and rsqrt give fixed results for NaN, negatives, zeros, infinity [model]

    instructions: tuple[Layout, ...]  # how they lie in their bits [defs]
    costs: Costs  # how long they take

    aliases: tuple[str, ...] = ()  # other names for it after -c

    def __post_init__(self) -> None:
        """What addresses and layouts rely on."""
        name, lane, width = self.name, self.lane_bytes, self.eu_bytes
        if self.banks * self.bank_bytes != lane:
            raise ValueError(f"{name}: {self.banks} banks of {self.bank_bytes} are not {lane} bytes")
        if 4 * self.lanes % width:  # transposes write such rows one behind the other
            raise ValueError(f"{name}: a row of {self.lanes} f32 is not a multiple of {width} bytes")

    @property
    def local_bytes(self) -> int:
        """Local memory of one core."""
        return self.lanes * self.lane_bytes

    @property
    def work_bytes(self) -> int:
        """Bytes per lane that one tile of weights or one lot of temporaries takes unless more is asked for: a
        sixteenth of a lane, so that several are in use at once.
        """
        return self.lane_bytes // 16

    @property
    def io_start(self) -> int | None:
        """What DMA commands call the first byte of I/O memory of its own."""
        return None if self.io_base is None else self.io_base | self.io_tag

    @property
    def mhz(self) -> int:
        """Of the cycles that estimates count; the plain one takes those of the DMA for such."""
        return self.tiu_mhz

    @property
    def dma_cycle(self) -> float:
        """How many of these cycles one of the DMA's takes."""
        return self.tiu_mhz / self.dma_mhz

    def eu_items(self, item_bytes: int) -> int:
        """Items of the given size that one lane handles per cycle."""
        return self.eu_bytes // item_bytes
