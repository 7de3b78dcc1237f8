"""What the instruction sets have in common: kinds and bodies of the instruction families.

A body is the text of a `Layout` with holes that each instruction set fills: `{head}`, the bits up to the
kind, and `{en}`, four bits that hold the id enable on BM1684X and options or nothing on BM1688; a few bodies
have one more hole.
"""

from __future__ import annotations


def kinds(text: str) -> dict[str, int]:
    """`"mul=0 add=2"` as a mapping."""
    return {name: int(code) for name, code in (item.split("=") for item in text.split())}


AR = kinds(
    "mul=0 not=1 add=2 sub=3 max=4 min=5 logic_shift=6 and=7 or=8 xor=9 select_gt=10 select_eq=11 div=12 "
    "select_lt=13 cast=14 adds=15 subs=16 mac=18 copy=19 muls=20 ashift=21 cshift=22 abs=26 fsubabs=27 "
    "first_one=29 first_zero=30"
)
CMP = kinds("gt_and_sel=22 sel_gt=23 sel_eq=24 lt_and_sel=25 sel_lt=26")
MM2 = kinds("nn=4 nt=5 tt=6")
SFU = kinds("taylor_4x=12 taylor=13 normalize=15 rsqrt=17")
TSBC = kinds("cw_ts=0 wc_ts=1 l_copy=2 l_bc=3 s_bc=4 s_distribute=5")
LIN = kinds("mac=1 square_sum=20 square_diff=21")
VC = kinds(
    "mul=0 add=2 sub=3 max=4 min=5 and=7 or=8 xor=9 select_gt=10 select_eq=11 div=12 select_lt=13 adds=15 "
    "subs=16 muls=20 mul_dhr=23"
)
SG = kinds(
    "pl_gather_d1coor=0 pl_gather_d2coor=1 pl_gather_rec=2 pl_scatter_d1coor=3 pl_scatter_d2coor=4 "
    "pe_s_gather_d1coor=5 pe_s_scatter_d1coor=6 pe_s_mask_select=8 pe_s_nonzero=9 pe_s_gather_hzd=13 "
    "pe_s_scatter_hzd=14 pe_s_mask_selhzd=15 pe_s_nonzero_hzd=16"
)
SGL = kinds("pe_s_gather_line=17 pe_s_scatter_line=18")
DMA_TENSOR = kinds(
    "copy=0 transpose=1 collect=2 broadcast=3 distribute=4 four_bank_copy=5 four_bank_broadcast=6"
)
DMA_MATRIX = kinds("copy=0 transpose=1")
DMA_GENERAL = kinds("copy=0 broadcast=1")

TIU_BODIES = {
    "ar": """
        {head} opd0_const:1 opd1_const:1 opd2_const:1 tsk_opd_num:2 {en} pwr_step:4 intr_en:1
        res0_prec:3 opd0_prec:3 opd1_prec:3 opd2_prec:3 opd0_sign:1 opd1_sign:1 res0_str:3
        opd0_str:3 opd1_str:3 opd2_n_str:3 -:6 res0_n:16 res0_c:16 res0_h:16 res0_w:16
        res0_addr:32 opd0_addr:32 opd1_addr:32 opd2_addr:32 res0_n_str:16 res0_c_str:16
        opd0_n_str:16 opd0_c_str:16 opd1_n_str:16 opd1_c_str:16 res0_h_str:20 res0_w_str:20
        opd0_h_str:20 opd2_sign:1 -:3 opd0_w_str:20 opd1_h_str:20 opd1_w_str:20 -:4
    """,
    "cmp": """
        {head} opd0_const:1 opd1_const:1 opd2_const:1 opd3_const:1 -:1 {en} pwr_step:4 intr_en:1
        opd0_prec:3 opd2_prec:3 opd0_str:3 opd1_str:3 -:51 opd0_sign:1 res0_n:16 res0_c:16
        res0_h:16 res0_w:16 res0_addr:32 res1_addr:32 opd0_addr:32 opd1_addr:32 opd2_addr:32
        opd3_addr:32
    """,
    "conv": """
        {head} opd0_sign:1 opd1_sign:1 opd2_sign:1 pad_mode:2 {en} pwr_step:4 res_add:1
        kernel_rotate:1 res0_prec:3 opd0_prec:3 opd1_const:1 opd2_const:1 opd0_up_pad:4
        opd0_dn_pad:4 opd0_lf_pad:4 opd0_rt_pad:4 res_op_x_str:4 res_op_y_str:4 opd3_const:1
        opd0_str:3 res0_addr:26 intr_en:1 opd0_x_ins0:4 opd0_y_ins0:4 opd1_x_ins0:4
        opd1_y_ins0:4 opd0_n_str:16 res0_n:16 res0_c:16 res0_h:16 res0_w:16 opd0_c:16 opd0_h:16
        opd0_w:16 opd1_h:16 opd1_w:16 opd0_c_str:16 opd0_addr:32 opd1_addr:32 opd2_addr:32
        res1_addr:32 opd3_addr:32 opd0_h_str:16 opd0_w_str:16
    """,
    "lin": """
        {head} opd1_const:1 opd2_const:1 res0_prec:3 {en} pwr_step:4 intr_en:1 res0_n:16
        res0_c:16 res0_h:16 res0_w:16 res0_addr:32 opd0_addr:32 opd1_addr:32 opd2_addr:32
    """,
    "mm": """
        {head} res_add:1 left_tran:1 opd0_const:1 opd2_const:1 -:1 {en} pwr_step:4 intr_en:1
        opd0_sign:1 opd1_sign:1 opd2_sign:1 res0_prec:3 opd0_prec:3 opd2_n_str:3 -:36 res0_c:16
        res0_w:16 opd0_n:16 opd0_c:16 opd0_w:16 -:16 opd1_w:16 res0_addr:32 opd0_addr:32
        opd1_addr:32 opd2_addr:32 {last}
    """,
    "mm2": """
        {head} opd0_sign:1 opd1_sign:1 res0_prec:3 {en} pwr_step:4 opd2_const:1 res0_c:16
        res0_w:16 opd1_c:16 opd1_w:16 opd0_prec:3 opd0_const:1 opd1_const:1 res_add:1
        res0_addr:25 intr_en:1 opd0_addr:32 opd1_addr:32 opd2_addr:32
    """,
    "pord": """
        {head} kernel_rotate:1 opd0_sign:1 opd1_sign:1 pad_mode:2 {en} pwr_step:4 opd1_const:1
        opd2_const:1 opd3_const:1 res0_prec:3 opd0_prec:3 opd0_x_ins0:4 opd0_y_ins0:4
        opd1_x_ins0:4 opd1_y_ins0:4 opd0_up_pad:4 opd0_dn_pad:4 opd0_lf_pad:4 opd0_rt_pad:4
        res_op_x_str:4 res_op_y_str:4 opd2_n_str:3 -:11 opd2_sign:1 intr_en:1 res0_n:16
        res0_c:16 res0_h:16 res0_w:16 opd0_h:16 opd0_w:16 opd1_h:16 opd1_w:16 res0_addr:32
        opd0_addr:32 opd1_addr:32 opd2_addr:32 res1_addr:32 opd3_addr:32 -:64
    """,
    "rqdq": """
        {head} opd0_sign:1 opd2_sign:1 res0_prec:3 {en} pwr_step:4 opd1_const:1 opd0_prec:3
        opd2_n_str:6 {result} opd0_addr:27 intr_en:1 res0_n:16 res0_c:16 res0_h:16 res0_w:16
        opd1_addr:32 opd2_addr:32
    """,
    "sfu": """
        {head} -:5 {en} pwr_step:4 intr_en:1 res0_prec:3 opd0_prec:3 opd2_n_str:2 -:8 res0_n:16
        res0_c:16 res0_h:16 res0_w:16 opd1_n:16 res0_addr:32 opd0_addr:32 opd1_addr:32
    """,
    "sg": """
        {head} opd3_const:1 intr_en:1 opd0_str:3 {en} pwr_step:4 opd2_const:1 res0_n:16
        res0_c:16 res0_h:16 res0_w:16 opd0_h:16 opd0_w:16 opd1_c:16 opd1_w:16 res0_prec:3
        res0_addr:29 opd0_prec:3 opd0_addr:29 opd1_prec:3 opd1_addr:29 opd2_addr:32 res1_addr:32
        opd3_addr:32
    """,
    "sgl": """
        {head} -:3 opd3_const:1 intr_en:1 {en} pwr_step:4 opd2_const:1 res0_prec:3 opd1_prec:3
        opd0_str:3 -:7 res0_n:16 res0_c:16 res0_h:16 res0_w:16 opd0_h:16 res0_addr:32
        opd0_addr:32 opd1_addr:32 opd2_addr:32 res1_addr:32 -:64
    """,
    "tsbc": """
        {head} res0_prec:3 -:2 {en} pwr_step:4 intr_en:1 res0_n:16 res0_c:16 res0_h:16 res0_w:16
        opd0_c:16 opd0_w:16 -:32 res0_addr:32 opd0_addr:32
    """,
    "vc": """
        {head} opd0_sign:1 opd1_sign:1 opd2_n_str:3 {en} pwr_step:4 intr_en:1 res0_prec:3
        opd0_prec:3 opd1_prec:3 res0_addr:32 -:23 opd0_addr:32 -:16 res0_c:16 res0_w:16
        opd0_c:16 opd0_w:16 opd1_w:16 opd1_addr:32 opd2_addr:32 -:64
    """,
}

# The linear instruction has neither ids nor a short flag, and is the same everywhere.
LAR = """
    opd0_w_str:1 opd1_w_str:1 opd2_const:1 res0_prec:3 opd0_prec:3 opd1_prec:3 opd2_n_str:3
    opd0_sign:1 opd1_sign:1 start_tid:6 res0_c:8 res0_w:8 -:2 tsk_typ:4 tsk_eu_typ:5 -:1
    tsk_opd_num:2 -:6 pwr_step:4 -:1 res0_addr:16 opd0_addr:16 opd1_addr:16 opd2_addr:16
"""

# What every TIU instruction can also be written as, in 1024 bits. Four holes differ between the sets.
LONG = """
    {head} {half} tsk_opd_num:2 pad_mode:2 {en} pwr_step:4 intr_en:1 res_add:1 relu:1 left_tran:1
    {opd4} kernel_rotate:1 opd0_sign:1 opd1_sign:1 opd2_sign:1 res0_prec:3 opd0_prec:3 opd1_prec:3
    opd2_prec:3 opd0_const:1 opd1_const:1 opd2_const:1 res0_str:3 opd0_str:3 opd1_str:3 opd2_str:3
    res_add_sign:1 -:25 {last} opd0_x_ins0:4 opd0_y_ins0:4 opd1_x_ins0:4 opd1_y_ins0:4 opd0_up_pad:4
    opd0_dn_pad:4 opd0_lf_pad:4 opd0_rt_pad:4 res_op_x_str:4 res_op_y_str:4 res0_h_shift:4
    res0_w_shift:4 opd0_h_shift:4 opd0_w_shift:4 opd1_h_shift:4 opd1_w_shift:4 tsk_lane_num:64
    res0_n:16 res0_c:16 res0_h:16 res0_w:16 opd0_n:16 opd0_c:16 opd0_h:16 opd0_w:16 opd1_n:16
    opd1_c:16 opd1_h:16 opd1_w:16 res0_n_str:16 res0_c_str:16 opd0_n_str:16 opd0_c_str:16
    opd1_n_str:16 opd1_c_str:16 opd2_n_str:16 opd2_c_str:16 res0_addr:32 opd0_addr:32 opd1_addr:32
    opd2_addr:32 res0_h_str:32 res0_w_str:32 opd0_h_str:32 opd0_w_str:32 opd1_h_str:32 opd1_w_str:32
    opd2_h_str:32 opd2_w_str:32 res1_addr:32 opd3_addr:32
"""

SRC_DST = "src_start_addr_l32:32 src_start_addr_h8:8 -:24 dst_start_addr_l32:32 dst_start_addr_h8:8 -:24"
LANE_MASK = "localmem_mask_l32:32 localmem_mask_h32:32"
DMA_TENSOR_BODY = f"""
    {{head}} -:21 {{dep}} constant_value:32 src_nstride:32 src_cstride:32 src_hstride:32
    src_wstride:32 dst_nstride:32 dst_cstride:32 dst_hstride:32 dst_wstride:32 src_nsize:16
    src_csize:16 src_hsize:16 src_wsize:16 dst_nsize:16 dst_csize:16 dst_hsize:16 dst_wsize:16
    {SRC_DST} -:64 {LANE_MASK}
"""
DMA_ROWS_BODY = f"""
    {{head}} -:21 {{dep}} constant_value:32 src_cstride:32 src_hstride:32 dst_cstride:32
    dst_hstride:32 index_cstride:32 index_hstride:32 -:16 src_csize:16 src_hsize:32 src_wsize:16
    dst_csize:16 dst_hsize:32 dst_wsize:16 index_csize:16 index_hsize:32 {SRC_DST}
    index_start_addr_l32:32 index_start_addr_h8:8 -:24 {LANE_MASK}
"""

# All DMA instructions are 768 bits. Both addresses are a low word and a high byte; strides are in items.
DMA_BODIES = {
    "dma_tensor": DMA_TENSOR_BODY,
    "dma_matrix": DMA_TENSOR_BODY,
    "dma_cw_transpose": DMA_TENSOR_BODY,
    "dma_general": DMA_TENSOR_BODY.replace("src_cstride", "move_length"),
    "dma_masked_select": DMA_TENSOR_BODY.replace("-:21", "mask_data_format:3 -:18", 1).replace(
        "-:64", "mask_start_addr_l32:32 mask_start_addr_h8:32"
    ),
    "dma_nonzero": DMA_TENSOR_BODY.replace("-:21", "index_data_format:3 -:18", 1),
    "dma_gather": DMA_ROWS_BODY,
    "dma_scatter": DMA_ROWS_BODY,
}
DMA_OPCODES = {
    "dma_tensor": (0, DMA_TENSOR),
    "dma_matrix": (1, DMA_MATRIX),
    "dma_masked_select": (2, kinds("copy=0")),
    "dma_general": (3, DMA_GENERAL),
    "dma_cw_transpose": (4, kinds("copy=0")),
    "dma_nonzero": (5, kinds("copy=0")),
    "dma_gather": (7, kinds("copy=0")),
    "dma_scatter": (8, kinds("copy=0")),
}
ALL_LANES = {"localmem_mask_l32": 0xFFFFFFFF, "localmem_mask_h32": 0xFFFFFFFF}
