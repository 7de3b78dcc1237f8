"""Cycles of single commands of the DMA: facts of the vendor's estimate, and what the cautious one adds."""

from __future__ import annotations

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.chips.cv186ah import CV186AH
from compiler.target.isa import split_address
from compiler.target.timing import cycles
from tests.compiler.target.timing.instructions import (
    BF16,
    I8,
    I32,
    gather,
    make,
    matrix,
    rows_of,
    tensor,
)

FACTS = [
    ("load rows", tensor("copy", *rows_of(512, 576)), 10919),
    ("store rows", tensor("copy", *rows_of(512, 576), store=True), 14393),
    ("h joins w where rows touch", tensor("copy", (1, 512, 576, 1), (294912, 576, 1, 1)), 10919),
    ("h joins w", tensor("copy", (1, 64, 2, 64), (0, 32768, 64, 1)), 303),
    ("h of stride w, w of none", tensor("copy", (1, 64, 2, 1), (0, 32768, 1, 5)), 303),
    ("h far apart, w of 1", tensor("copy", (1, 64, 2, 1), (0, 32768, 7, 1)), 606),
    ("one far h", tensor("copy", (1, 64, 1, 128), (0, 32768, 7, 1)), 303),
    ("one w of any stride", tensor("copy", (1, 64, 1, 1), (0, 32768, 7, 9)), 303),
    ("another shape on the other side", tensor("copy", (1, 1, 1, 4096), (32768, 512, 512, 1), nchw_copy=0,
     store=True, dst_nsize=1, dst_csize=8, dst_hsize=1, dst_wsize=512), 399),
    ("its shape left out", tensor("copy", *rows_of(8, 512), nchw_copy=0, store=True), 399),
    ("its shape not used", tensor("copy", *rows_of(8, 512), store=True, dst_nsize=1, dst_csize=1, dst_hsize=1,
     dst_wsize=9), 399),
    ("a row uses one channel", tensor("copy", *rows_of(1, 576)), 85),
    ("short rows, one channel", tensor("copy", *rows_of(64, 27)), 1213),
    ("short rows, two channels", tensor("copy", *rows_of(64, 81), item=I8), 606),
    ("short rows, three channels", tensor("copy", *rows_of(64, 81)), 404),
    ("short rows, four channels", tensor("copy", *rows_of(64, 108)), 303),
    ("a column", tensor("copy", (1, 576, 1, 1), (576, 1, 1, 1)), 10919),
    ("items apart are rows", tensor("copy", (1, 1, 1, 64), (64, 64, 64, 512)), 1213),
    ("rows apart do not join", tensor("copy", (1, 64, 2, 128), (0, 32768, 256, 1)), 606),
    ("the stride of c counts, not its bytes", tensor("copy", (1, 1, 1, 576), (0, 8192, 0, 1)), 21),
    ("batches on one channel", tensor("copy", (8, 1, 1, 128), (8192, 128, 128, 1)), 151),
    ("heads to lanes", tensor("transpose", (256, 3, 1, 64), (576, 64, 64, 1)), 3639),
    ("all heads of two channels", tensor("transpose", (128, 16, 1, 128), (4096, 128, 128, 1)), 19412),
    ("all heads of four", tensor("transpose", (64, 32, 1, 128), (4096, 128, 128, 1)), 9706),
    ("heads across a page", tensor("transpose", (128, 7, 1, 128), (3584, 128, 128, 1)), 4246),
    ("tokens to lanes", tensor("transpose", (256, 1, 1, 64), (64, 64, 64, 1)), 1213),
    ("load by n", tensor("transpose", (4, 1, 1, 2048), (2048, 64, 64, 1)), 303),
    ("store by n where c was", tensor("transpose", (1, 4, 1, 2048), (2048, 64, 64, 1), store=True), 399),
    ("no strides: DDR is compact", tensor("copy", (1, 512, 1, 576), (0, 0, 0, 0), stride_enable=0), 10919),
    ("one word to all lanes", tensor("broadcast", (1, 1, 1, 1), (1, 1, 1, 1), item=I32, dst_csize=64), 4),
    ("rows of words to all lanes", tensor("broadcast", (1, 1, 512, 1), (0, 0, 1, 1), item=I32, dst_csize=64), 2259),
    ("a matrix over the lanes", matrix(1, 576, 9), 282),
    ("a matrix of wide blocks", matrix(24, 16384, 256), 13559),
    ("store a matrix", matrix(24, 16384, 256, store=True), 17873),
    ("gather", gather(512, 64), 1024),
    ("gather one row", gather(1, 64), 2),
    ("end", make("dma_sys", "end"), 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [pytest.param(i, n, id=text) for text, i, n in FACTS],
)
def test_cycles_of_the_vendors_estimate(instruction, expected):
    assert cycles(instruction, BM1684X) == expected


CAUTIOUS_FACTS = [
    ("a load waits for DDR", tensor("copy", *rows_of(512, 576)), 10919 + 387),
    ("a store less so", tensor("copy", *rows_of(512, 576), store=True), 14393 + 227),
    ("rows of a gather are read and written", gather(512, 576), 25312 + 614),
    ("a gather reads and writes whole bursts", gather(1, 64), int(256 / 64 * (1.18482 + 1.561803)) + 614),
]


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in CAUTIOUS_FACTS]
)
def test_cycles_of_the_cautious_estimate(instruction, expected):
    assert cycles(instruction, BM1684X, cautious=True) == expected


NEVER_SEEN = [
    ("fill local memory", tensor("copy", *rows_of(64, 2048), fill_constant_en=1), 6397),
    ("copy within DDR", tensor("copy", *rows_of(512, 576), **split_address("dst", 3 << 32)), 25312),
    ("short rows within DDR", tensor("copy", *rows_of(512, 1), **split_address("dst", 3 << 32)), 43),
    ("gather to the lanes", gather(512, 64, **split_address("dst", BM1684X.dma_local_base)), 2426),
    ("rows to a general command", make("dma_general", "copy", move_length=32768, src_data_format=BF16,
     **split_address("src", BM1684X.ddr_base), **split_address("dst", BM1684X.dma_local_base)), 1213),
    ("a short one", make("dma_general", "copy", move_length=1152, **split_address("src", BM1684X.ddr_base),
     **split_address("dst", BM1684X.dma_local_base)), 85),
    ("to all lanes", make("dma_general", "broadcast", move_length=580, **split_address("src", BM1684X.ddr_base),
     **split_address("dst", BM1684X.dma_local_base)), 10),
    ("channels and columns exchanged", tensor("collect", (1, 64, 1, 8), (512, 64, 64, 1), store=True), 64 * 8 * 4 * 1.561803 * 4),
    ("the same as a command", make("dma_cw_transpose", "copy", src_nsize=1, src_csize=64, src_hsize=1, src_wsize=8,
     **split_address("src", BM1684X.ddr_base), **split_address("dst", BM1684X.dma_local_base)), 64 * 8 * 4 * 1.18482),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in NEVER_SEEN]
)
def test_what_was_never_seen_is_charged_carefully(instruction, expected):
    assert cycles(instruction, BM1684X) == int(expected)


def test_short_rows_within_ddr_are_whole_bursts_in_the_cautious_estimate():
    short = tensor("copy", *rows_of(512, 1), **split_address("dst", 3 << 32))
    assert cycles(short, BM1684X, cautious=True) == int(512 * 256 / 64 * (1.18482 + 1.561803)) + 614


WITHIN_DDR = split_address("dst", BM1688.ddr_base + 65536)

BM1688_FACTS = [
    ("load rows", tensor("copy", *rows_of(64, 64), spec=BM1688), 290 + 307),
    ("store rows", tensor("copy", *rows_of(64, 64), store=True, spec=BM1688), 170 + 307),
    ("short rows on two channels", tensor("copy", *rows_of(16, 16), spec=BM1688), 290 + 96),
    ("batches on two channels", tensor("copy", (8, 1, 1, 64), (256, 64, 64, 1), spec=BM1688), 290 + 76),
    ("three of their first four", tensor("transpose", (256, 1, 1, 64), (192, 64, 64, 1), spec=BM1688), 290 + 1638),
    ("pages count, not batches", tensor("transpose", (128, 1, 1, 64), (64, 64, 64, 1), spec=BM1688), 290 + 614),
    ("the first four pages count", tensor("transpose", (128, 5, 1, 64), (640, 64, 64, 1), spec=BM1688), 290 + 4096),
    ("rows beside them add none", tensor("transpose", (128, 3, 1, 64), (576, 64, 64, 1), spec=BM1688), 290 + 3686),
    ("but may use more", tensor("transpose", (4, 9, 1, 64), (576, 64, 64, 1), spec=BM1688), 290 + 172),
    ("a copy within DDR", tensor("copy", *rows_of(64, 8), spec=BM1688, **WITHIN_DDR), 290 + 76),
    ("a matrix", matrix(1, 1024, 32, spec=BM1688), 290 + 96),
    ("a gather", gather(64, 64, BM1688), 290 + 614),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in BM1688_FACTS]
)
def test_cycles_on_bm1688(instruction, expected):
    assert cycles(instruction, BM1688) == cycles(instruction, CV186AH) == expected


BM1688_CAUTIOUS_FACTS = [
    ("a load has its latency already", tensor("copy", *rows_of(64, 64), spec=BM1688), (290 + 307.2) * 900 / 750),
    ("so has a store", tensor("copy", *rows_of(64, 64), store=True, spec=BM1688), (170 + 307.2) * 900 / 750),
    ("a gather reads, then writes", gather(64, 64, BM1688), (460 + 614.4) * 900 / 750),
]


@pytest.mark.parametrize(
    ("instruction", "expected"), [pytest.param(i, n, id=text) for text, i, n in BM1688_CAUTIOUS_FACTS]
)
def test_cautious_cycles_on_bm1688(instruction, expected):
    assert cycles(instruction, BM1688, cautious=True) == int(expected)


@pytest.mark.parametrize("spec", [BM1684X, BM1688], ids=lambda spec: spec.name)
def test_a_copy_within_local_memory_is_charged_as_a_store(spec):
    store = tensor("copy", *rows_of(64, 2048), store=True, spec=spec)
    inside = tensor(
        "copy", *rows_of(64, 2048), spec=spec, **split_address("src", spec.dma_local_base + 65536)
    )
    for cautious in (False, True):
        assert cycles(inside, spec, cautious) == cycles(store, spec, cautious)
