"""BM1684X: every command carries its own 20-bit number and a 20-bit number to wait for."""

from __future__ import annotations

from compiler.target import families as f
from compiler.target.costs import LOAD, LOCAL, MOVE, STORE, TIU_START, Costs, rates
from compiler.target.layout import Layout
from compiler.target.spec import KIB, ChipSpec

TIU_HEAD = "cmd_short:1 cmd_id:20 cmd_id_dep:20 tsk_typ:4 tsk_eu_typ:5"
HOLES = {"head": TIU_HEAD, "en": "cmd_id_en:4", "last": "opd3_addr:32", "result": "res0_addr:27"}
LONG = f.LONG.format(
    head=TIU_HEAD, half="eu_half_en:1", en="cmd_id_en:4", opd4="-:1", last="-:1 opd3_const:1 -:1"
)
SYS = (
    "-:1 cmd_id:20 cmd_id_dep:20 tsk_typ:4 tsk_eu_typ:5 -:5 cmd_id_en:4 pwr_step:4 intr_en:1 "
    "cmd_id_eng1:20 cmd_id_eng2:20 cmd_id_eng3:20 -:4"
)
SEG = f"{TIU_HEAD} -:2 res0_prec:3 cmd_id_en:4 pwr_step:4 intr_en:1 res0_c:16 res0_w:16 res0_addr:32"
DMA_HEAD = (
    "intr_en:1 stride_enable:1 nchw_copy:1 cmd_short:1 decompress_enable:1 cmd_id_en:4 cmd_id:20 -:3 "
    "cmd_type:4 cmd_special_function:3 fill_constant_en:1 src_data_format:3"
)
DMA_DEP = "cmd_id_dep:20 -:12"

OPCODES = {
    "conv": (0, f.kinds("normal=0 wrq=1 wrqrelu=2")),
    "pord": (1, f.kinds("depthwise=0 avgpooling=1 depthwiserelu=2 maxpooling=4 roi_depthwise=5 "
                        "roi_avgpooling=6 roi_maxpooling=7")),
    "mm": (2, f.kinds("normal=1 wrq=2 wrqrelu=3")),
    "mm2": (2, f.MM2),
    "ar": (3, f.AR | f.kinds("mul_dhr=23 copy_mb=28")),
    "rqdq": (4, f.kinds("rq0=0 rq1=1 rq2=2 dq0=3 dq1=4 dq2=5")),
    "tsbc": (5, f.TSBC),
    "sg": (6, f.SG | f.kinds("pe_m_gather_d1coor=7 pe_s_scatter_pp_d1coor=10 pl_gather_perw=11 "
                             "pl_scatter_perw=12")),
    "sgl": (6, f.SGL),
    "sfu": (9, f.SFU),
    "lin": (10, f.LIN),
    "cmp": (13, f.CMP),
    "vc": (14, f.VC),
}  # fmt: skip
SYS_KINDS = f.kinds(
    "intr_barrier=0 spb=1 swr=2 swr_from_lmem=3 swr_collect_from_lmem=4 data_barrier=5 nop=30 end=31"
)
ENABLED = {"cmd_id_en": 1}

TIU = [
    layout
    for name, (opcode, kinds) in OPCODES.items()
    for layout in (
        Layout(name, "tiu", opcode, kinds, f.TIU_BODIES[name].format(**HOLES), ENABLED),
        Layout(name, "tiu", opcode, kinds, LONG, ENABLED | {"tsk_lane_num": (1 << 64) - 1}, short=False),
    )
]
DMA = [
    Layout(
        name,
        "dma",
        *f.DMA_OPCODES[name],
        body.format(head=DMA_HEAD, dep=DMA_DEP),
        ENABLED | f.ALL_LANES,
        short=False,
    )
    for name, body in f.DMA_BODIES.items()
]

INSTRUCTIONS: tuple[Layout, ...] = (
    *TIU,
    Layout("seg", "tiu", 3, f.kinds("eu_index=24 lane_index=25"), SEG, ENABLED),
    Layout("lar", "tiu", 7, f.AR, f.LAR, {}),
    Layout("sys", "tiu", 15, SYS_KINDS, SYS, {}),
    *DMA,
    Layout(
        "dma_sys", "dma", 6, f.kinds("end=0 nop=1"), f"{DMA_HEAD} -:21 {DMA_DEP} constant_value:32", ENABLED
    ),
)

COSTS = Costs(
    tiu_start=TIU_START,
    matmul_block=(64, 32, 4),
    static_broadcast=1,
    free_self_copy=False,
    short_row=256,
    page=4096,
    tensor_rate=rates(1.18482 / 64, 1.561803 / 64),  # 54.0 and 41.0 bytes per cycle
    matrix_rate=rates(1 / 58, 1 / 44),
    broadcast_rate=1 / 58,
    gather_rate=1 / 64,
    shared_rate=None,
    latency={LOAD: 0, STORE: 0, MOVE: 0, LOCAL: 0},
    # BM1688's at 750 MHz, in cycles of 1000 MHz.
    cautious_latency={LOAD: 387, STORE: 227, MOVE: 614, LOCAL: 227},
)

BM1684X = ChipSpec(
    name="bm1684x",
    chip="BM1684X",
    bmodel_tail="{devices}dev",
    streams_per_core=False,
    cores=1,
    lanes=64,
    lane_bytes=256 * KIB,
    banks=16,
    bank_bytes=16 * KIB,
    eu_bytes=64,
    mm_k_block=32,
    static_bytes=16 * KIB,
    exp_table=1024,
    log_table=1152,
    index_table=1472,
    l2_bytes=0x1FB000,  # of a window of 2 MiB
    dma_local_base=0x0800_0000,
    tiu_static_base=0x0900_0000,
    l2_base=0x1000_0000,
    ddr_base=0x1_0000_0000,
    coeff_base=0x1_0000_0000,
    neuron_base=None,
    io_base=None,
    io_tag=0,
    tiu_mhz=1000,
    dma_mhz=1000,
    command_ids=True,
    native_int4=False,
    products_with_bias=False,
    integer_products=True,
    pools_tell_where=False,
    pools_keep_first=False,
    checked_roots=False,
    instructions=INSTRUCTIONS,
    costs=COSTS,
)
