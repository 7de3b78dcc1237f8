"""BM1688: a command's number is its place in the stream; it may wait for a 24-bit number."""

from __future__ import annotations

from compiler.target import families as f
from compiler.target.costs import LOAD, LOCAL, MOVE, STORE, TIU_START, Costs, rates
from compiler.target.layout import Layout
from compiler.target.spec import KIB, ChipSpec

TAIL = "cmd_id_dep:24 tsk_typ:4 tsk_eu_typ:5"
HEAD = f"cmd_short:1 op_code:16 {TAIL}"
SIGNED = "res0_sign:1 -:3"

# Holes of the shared bodies, for the families that use the id bits for options of their own.
HOLES = {"head": HEAD, "en": "-:4"}
OWN_HOLES = {
    "ar": {"en": "sym_range:1 -:3"},
    "conv": {
        "head": "cmd_short:1 sym_range:1 opd4_const:1 opd5_const:1 relu:1 rq:1 opd2_n_str:3 opd1_prec:3 "
        f"op_code:5 {TAIL}",
        "en": SIGNED,
    },
    "mm": {"head": f"cmd_short:1 sym_range:1 -:2 relu:1 rq:1 -:11 {TAIL}", "en": SIGNED, "last": "-:32"},
    "mm2": {
        "head": "cmd_short:1 sym_range:1 opd4_const:1 opd5_const:1 relu:1 rq:1 -:3 opd1_prec:3 -:2 "
        f"opd2_sign:1 op_code:2 {TAIL}",
        "en": "res0_sign:1 opd2_n_str:3",
    },
    "pord": {"head": f"cmd_short:1 sym_range:1 -:1 opd5_const:1 relu:1 rq:1 op_code:11 {TAIL}", "en": SIGNED},
    "rqdq": {"head": f"cmd_short:1 sym_range:1 op_code:15 {TAIL}", "result": "-:1 res0_addr:26"},
}
LONG = f.LONG.replace("-:25 {last}", "-:25 sym_range:1 opd3_const:1 opd5_const:1")
LONG = LONG.format(head=HEAD, half="rq:1", en=SIGNED, opd4="opd4_const:1")

OPCODES = {
    "conv": (0, f.kinds("normal=0")),
    "pord": (1, f.kinds("depthwise=0 avgpooling=1 minpooling=3 maxpooling=4 roi_depthwise=5 roi_avgpooling=6 "
                        "roi_maxpooling=7 roi_minpooling=8")),
    "mm": (2, f.kinds("normal=1")),
    "mm2": (2, f.MM2),
    "ar": (3, f.AR),
    "rqdq": (4, f.kinds("rq0=0 rq1=1 dq0=3 dq1=4")),
    "tsbc": (5, f.TSBC),
    "sg": (6, f.SG),
    "sgl": (6, f.SGL),
    "sfu": (9, f.SFU),
    "lin": (10, f.LIN),
    "cmp": (13, f.CMP),
    "vc": (14, f.VC),
}  # fmt: skip
SYS = f"-:17 {TAIL} reg_vld:2 reg_idx:7 pwr_step:4 intr_en:1 imm:64"
SYS_KINDS = f.kinds("spb=1 swr=2 swr_from_lmem=3 swr_collect_from_lmem=4 send_msg=8 wait_msg=9 nop=30 end=31")
REGISTER = "imm0:32 reg_idx0:8 intr_en:1 tsk_typ:4 tsk_eu_typ:3 reg_idx1:8 reg_idx2:8 imm1:64"
DMA_HEAD = (
    "intr_en:1 stride_enable:1 nchw_copy:1 cmd_short:1 -:28 cmd_type:4 cmd_special_function:3 "
    "fill_constant_en:1 src_data_format:3"
)
DMA_SYS_KINDS = f.kinds("end=0 nop=1 write_register=2 send=3 wait=4")
DMA_DEP = "cmd_id_dep:24 -:8"
META = (
    "meta_nstride:32 meta_lanecstride:32 src_nsize:16 src_csize:16 src_hsize:16 src_wsize:16 meta_hstride:32"
)
BIAS = "bias0:8 bias1:8 is_sign:1 zguard:1 -:14"
COMPRESSED = "racu_nstride:32 racu_lanecstride:32 racu_hstride:32"
META_ADDR = "meta_start_addr_l32:32 meta_start_addr_h8:8 -:24"
DMA_BODIES = f.DMA_BODIES | {
    "dma_reverse": f.DMA_TENSOR_BODY,
    "dma_compress": "{head} -:21 {dep} constant_value:32 src_nstride:32 src_cstride:32 src_hstride:32 "
    f"{COMPRESSED} {META} {BIAS} {f.SRC_DST.replace('dst', 'racu')} {META_ADDR} {f.LANE_MASK}",
    "dma_decompress": f"{{head}} -:21 {{dep}} constant_value:32 {COMPRESSED} dst_nstride:32 dst_cstride:32 "
    f"dst_hstride:32 {META} {BIAS} {f.SRC_DST.replace('src', 'racu')} {META_ADDR} {f.LANE_MASK}",
}
PACKINGS = f.kinds("plain=0 random_access=1")
DMA_OPCODES = f.DMA_OPCODES | {
    "dma_masked_select": (2, f.kinds("copy=0 ncw=1")),
    "dma_reverse": (9, f.kinds("w=0 h=1 c=2 n=3")),
    "dma_compress": (10, PACKINGS),
    "dma_decompress": (11, PACKINGS),
}


# MM2 reads a bias from opd2_addr unless opd2 is a constant; max and min pooling store the positions of what
# they found at opd2_addr unless it is all ones.
DEFAULTS = {"mm2": {"opd2_const": 1}, "pord": {"opd2_addr": 0xFFFFFFFF}}
# The right operand of a product has a type of its own, and the result of pooling a sign, which other chips
# take from the left operand; the C-model refuses pooling from a signed type into an unsigned one.
DERIVED = {"mm2": {"opd1_prec": "opd0_prec"}, "pord": {"res0_sign": "opd0_sign"}}


def short_form(name: str) -> Layout:
    """The form the vendor's compiler and ours write."""
    text = f.TIU_BODIES[name].format(**(HOLES | OWN_HOLES.get(name, {})))
    return Layout(name, "tiu", *OPCODES[name], text, DEFAULTS.get(name, {}), DERIVED.get(name, {}))


def long_form(name: str) -> Layout:
    """The 1024-bit form."""
    return Layout(name, "tiu", *OPCODES[name], LONG, {"tsk_lane_num": (1 << 64) - 1}, short=False)


INSTRUCTIONS: tuple[Layout, ...] = (
    *(form(name) for name in OPCODES for form in (short_form, long_form)),
    Layout("sys", "tiu", 15, SYS_KINDS, SYS, {}),
    Layout("sys_tr_acc", "tiu", 12, f.kinds("write=0"), REGISTER, {}),
    *(
        Layout(
            name, "dma", *DMA_OPCODES[name], body.format(head=DMA_HEAD, dep=DMA_DEP), f.ALL_LANES, short=False
        )
        for name, body in DMA_BODIES.items()
    ),
    Layout(
        "dma_sys", "dma", 6, DMA_SYS_KINDS, f"{DMA_HEAD} -:21 cmd_id_dep:24 index:8 constant_value:32", {}
    ),
)

# The vendor's estimate charges 0.06 cycles per byte what fused elementwise layers load and store and, in
# programs for two cores, what its compiler cuts in two by itself: elementwise layers and products with bf16
# weights, so all of a head. Nothing in a command tells: two loads of one row may differ in address and rate
# alone. All else, 4-bit products, norms and attention, is at this rate. Totals are low by 0.2 to 4% for
# blocks on one core, 0.2 to 6% on two, and 37% for heads on two.
RATE = 0.0375  # 26.7 bytes per cycle; by the DMA's clock 20 GB/s, of which one core gets 18 on boards
COSTS = Costs(
    tiu_start=TIU_START,
    matmul_block=(32, 16, 2),
    static_broadcast=3,
    free_self_copy=True,
    short_row=80,
    page=256,
    tensor_rate=rates(RATE, RATE),
    matrix_rate=rates(RATE, RATE),
    broadcast_rate=RATE,
    gather_rate=2 * RATE,
    shared_rate=750 / 24_500,  # 24.5 GB/s: published rates of boards with both cores at work
    latency={LOAD: 290, STORE: 170, MOVE: 290, LOCAL: 170},
    cautious_latency={LOAD: 290, STORE: 170, MOVE: 460, LOCAL: 170},
)

BM1688 = ChipSpec(
    name="bm1688",
    chip="BM1688",
    bmodel_tail="{cores}core",
    streams_per_core=True,
    cores=2,
    lanes=32,
    lane_bytes=128 * KIB,
    banks=16,
    bank_bytes=8 * KIB,
    eu_bytes=16,
    mm_k_block=16,
    static_bytes=64 * KIB,
    exp_table=0,
    log_table=128,
    index_table=448,
    l2_bytes=2048 * KIB,
    dma_local_base=0,
    tiu_static_base=0,
    l2_base=0x1_0100_0000,
    ddr_base=0x80_0000_0000,  # bit 39; bits 38..36 pick a base register
    coeff_base=0x90_0000_0000,  # base register 1
    neuron_base=0xA0_0000_0000,  # base register 2
    io_base=0x1_0000_0000,
    io_tag=0x80_0000_0000,
    tiu_mhz=900,
    dma_mhz=750,
    command_ids=False,
    native_int4=True,
    products_with_bias=True,
    integer_products=False,
    pools_tell_where=True,
    pools_keep_first=True,
    checked_roots=True,
    instructions=INSTRUCTIONS,
    costs=COSTS,
)
