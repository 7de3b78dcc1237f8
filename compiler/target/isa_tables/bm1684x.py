"""BM1684X: every command carries its own 20-bit number and a 20-bit number to wait for."""

from __future__ import annotations

from compiler.target.isa_tables import families as f
from compiler.target.isa_tables.layout import Layout

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

LAYOUTS: tuple[Layout, ...] = (
    *TIU,
    Layout("seg", "tiu", 3, f.kinds("eu_index=24 lane_index=25"), SEG, ENABLED),
    Layout("lar", "tiu", 7, f.AR, f.LAR, {}),
    Layout("sys", "tiu", 15, SYS_KINDS, SYS, {}),
    *DMA,
    Layout(
        "dma_sys", "dma", 6, f.kinds("end=0 nop=1"), f"{DMA_HEAD} -:21 {DMA_DEP} constant_value:32", ENABLED
    ),
)
