"""Where operands lie: layouts and start lanes of TIU instructions, DMA commands, and addresses that are errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.target.isa import split_address
from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.single import TYPES, Single, bits, dma_sizes, precision, sizes

ITEMS = 20000  # of DDR on either side


class Board(Single):
    """A machine with two buffers in DDR."""

    def __init__(self, chip: str) -> None:
        super().__init__(chip)
        self.source, self.target = self.spec.coeff_base, self.spec.coeff_base + 0x100000
        self.input, self.output = np.arange(ITEMS, dtype=np.uint32) + 7, np.zeros(ITEMS, np.uint32)
        self.machine.ddr.map(self.source, self.input)
        self.machine.ddr.map(self.target, self.output)


@pytest.fixture(params=["bm1684x", "bm1688"])
def chip(request: pytest.FixtureRequest) -> Board:
    return Board(request.param)


U32 = {"src_data_format": 4}


@pytest.mark.parametrize("lane", [0, 5, 31])
@pytest.mark.parametrize("layout", [0, 1, 2, 3])
def test_layouts_of_an_operand(chip: Single, layout: int, lane: int):
    shape, strides = (2, 70, 3, 5), (1000, 150, 40, 3)
    first = np.arange(math.prod(shape)).reshape(shape)
    second = 100000 + np.arange(70).reshape(1, 70, 1, 1) if layout == 2 else 100000 + first
    offset = 0x4000 if layout == 0 else 0x4004
    chip.put(chip.at(0x1000, lane), first, "i32")
    held = strides if layout == 3 else chip.strides(layout, shape, "i32", lane)
    chip.put(chip.at(offset, lane), second, "i32", strides=held)
    fields = dict(zip(("opd1_n_str", "opd1_c_str", "opd1_h_str", "opd1_w_str"), strides, strict=True))
    chip.run(
        "ar", "add", tsk_opd_num=2, res0_prec=4, opd0_prec=4, opd1_prec=4, opd1_str=layout, res0_str=0,
        res0_addr=chip.at(0x10000, lane), opd0_addr=chip.at(0x1000, lane), opd1_addr=chip.at(offset, lane),
        **sizes("res0", shape), **fields,
    )  # fmt: skip
    assert np.array_equal(chip.get(chip.at(0x10000, lane), shape, "i32"), first + second)


@pytest.mark.parametrize("layout", [0, 1, 3])
def test_layouts_of_a_result(chip: Single, layout: int):
    shape, strides = (2, 40, 2, 3), (400, 100, 30, 7)
    values = np.arange(math.prod(shape)).reshape(shape)
    chip.put(chip.at(0x1000, 2), values, "i16")
    fields = dict(zip(("res0_n_str", "res0_c_str", "res0_h_str", "res0_w_str"), strides, strict=True))
    chip.run("ar", "copy", tsk_opd_num=1, res0_prec=3, opd0_prec=3, res0_str=layout, res0_addr=chip.at(0x8000, 2),
             opd0_addr=chip.at(0x1000, 2), **sizes("res0", shape), **fields)  # fmt: skip
    held = strides if layout == 3 else chip.strides(layout, shape, "i16", 2)
    assert np.array_equal(chip.get(chip.at(0x8000, 2), shape, "i16", strides=held), values)
    # The gap behind the first row of free strides is untouched.
    if layout == 3:
        assert chip.get(chip.at(0x8002, 2), (1, 1, 1, 1), "u16").item() == 0xDEAD


def test_strides_of_zero_broadcast(chip: Single):
    chip.put(0x1000, np.float32([[[[10], [20], [30]]]]), "f32", strides=(0, 0, 1, 0))
    chip.put(0x2000, np.float32([[[[1, 2, 3, 4]]]]), "f32")
    chip.run(
        "ar", "add", tsk_opd_num=2, res0_prec=2, opd0_prec=2, opd1_prec=2, opd0_addr=0x1000, opd1_addr=0x2000, res0_addr=0x3000,
        opd0_str=3, opd0_h_str=1, opd1_str=3, opd1_w_str=1, **sizes("res0", (1, 1, 3, 4)),
    )  # fmt: skip
    assert chip.get(0x3000, (1, 1, 3, 4), "f32")[0, 0].tolist() == [[r + c for c in (1, 2, 3, 4)] for r in (10, 20, 30)]


@pytest.mark.parametrize("lane", [0, 3])
def test_dma_tensor_copy_with_strides(chip: Board, lane: int):
    shape, flat, local = (2, 37, 3, 4), (5000, 120, 37, 2), (600, 90, 25, 3)
    where = {"nchw_copy": 1, "stride_enable": 1, **U32}
    there = chip.dma_local(0x1000, lane)
    chip.dma("copy", chip.source, there, **where, **dma_sizes("src", shape, flat), **dma_sizes("dst", shape, local))
    chip.dma("copy", there, chip.target, **where, **dma_sizes("src", shape, local), **dma_sizes("dst", shape, flat))
    got = chip.get(chip.at(0x1000, lane), shape, "u32", strides=local)
    for n, c, h, w in np.ndindex(shape):
        at = n * 5000 + c * 120 + h * 37 + w * 2
        assert got[n, c, h, w] == chip.output[at] == chip.input[at] == at + 7
    assert np.count_nonzero(chip.output) == math.prod(shape)


def test_dma_without_strides_is_compact_in_ddr_and_aligned_in_local(chip: Board):
    shape = (2, 70, 3, 5)
    chip.dma("copy", chip.source, chip.dma_local(0x1000), nchw_copy=1, **U32, **dma_sizes("src", shape), **dma_sizes("dst", shape))
    assert np.array_equal(chip.get(0x1000, shape, "u32"), np.arange(7, 7 + math.prod(shape)).reshape(shape))


def test_dma_tensor_copy_reshapes(chip: Board):
    chip.put(0x1000, np.arange(320).reshape(1, 1, 1, 320), "u32")
    chip.dma("copy", chip.dma_local(0x1000), chip.dma_local(0x4000), **U32, **dma_sizes("src", (1, 1, 1, 320)), **dma_sizes("dst", (1, 32, 2, 5)))
    assert chip.get(0x4000, (1, 32, 2, 5), "u32").reshape(-1).tolist() == list(range(320))


def test_dma_broadcast_puts_a_row_on_lanes(chip: Board):
    strides = dma_sizes("src", (1, 1, 2, 9), (0, 0, 100, 1)) | dma_sizes("dst", (1, 30, 2, 9), (32, 32, 16, 1))
    chip.dma("broadcast", chip.source + 40, chip.dma_local(0x1000, 1), stride_enable=1, **U32, **strides)
    for lane in range(1, 31):
        got = chip.get(chip.at(0x1000, lane), (1, 1, 2, 9), "u32", strides=(0, 0, 16, 1))
        assert got[0, 0].tolist() == [list(range(17, 26)), list(range(117, 126))]
    assert chip.get(chip.at(0x1000, 31), (1, 1, 1, 1), "u32").item() == 0xDEADBEEF


def test_dma_transposes(chip: Board):
    n, c, h, w = shape = (3, 4, 2, 5)
    values = np.arange(7, 127).reshape(shape)
    for name, kind, result, axes in (
        ("dma_tensor", "transpose", (c, n, h, w), (1, 0, 2, 3)),
        ("dma_tensor", "distribute", (n, w, h, c), (0, 3, 2, 1)),
        ("dma_cw_transpose", "copy", (n, w, h, c), (0, 3, 2, 1)),
    ):
        chip.dma(kind, chip.source, chip.dma_local(0x1000), name, **U32, **dma_sizes("src", shape), **dma_sizes("dst", result))
        got = chip.get(0x1000, result, "u32")
        for index in np.ndindex(shape):
            assert got[tuple(index[axis] for axis in axes)] == values[index]


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
def test_dma_fills_with_a_constant(chip: Board, dtype: str):
    fields = {"fill_constant_en": 1, "constant_value": 0x12345678, "src_data_format": precision(dtype)}
    chip.dma("copy", 0, chip.dma_local(0x1000, 2), **fields, **dma_sizes("src", (1, 3, 2, 5)), **dma_sizes("dst", (1, 3, 2, 5)))
    got = chip.get(chip.at(0x1000, 2), (1, 3, 2, 5), dtype)
    assert set(got.reshape(-1).tolist()) == {0x12345678 & np.iinfo(TYPES[dtype]).max}


@pytest.mark.parametrize("lane", [0, 9])
@pytest.mark.parametrize(("columns", "width"), [(120, 4), (118, 4), (400, 5), (7, 10)])
def test_dma_matrix_both_ways(chip: Board, columns: int, width: int, lane: int):
    rows, pitch, blocks = 3, 500, math.ceil(columns / width)
    matrix = {"hsize": rows, "wsize": columns, "csize": 1, "nsize": 1, "hstride": pitch}
    local = {"nsize": rows, "csize": blocks, "hsize": 1, "wsize": width, "nstride": 600, "cstride": 30, "hstride": width, "wstride": 1}
    there = chip.dma_local(0x1000, lane)
    for source, target, src, dst in ((chip.source, there, matrix, local), (there, chip.target, local, matrix)):
        fields = {f"src_{k}": v for k, v in src.items()} | {f"dst_{k}": v for k, v in dst.items()}
        chip.dma("copy", source, target, "dma_matrix", stride_enable=1, **U32, **fields)
    got = chip.get(chip.at(0x1000, lane), (rows, blocks, 1, width), "u32", strides=(600, 30, width, 1))
    for r in range(rows):
        for c in range(columns):
            assert got[r, c // width, 0, c % width] == chip.output[r * pitch + c] == r * pitch + c + 7
    assert np.count_nonzero(chip.output) == rows * columns


def test_dma_matrix_transposes(chip: Board):
    fields = {"src_hsize": 6, "src_wsize": 5, "src_hstride": 50, "dst_nsize": 5, "dst_csize": 3, "dst_wsize": 2, "dst_nstride": 16, "dst_cstride": 16}
    chip.dma("transpose", chip.source, chip.dma_local(0x1000), "dma_matrix", stride_enable=1, **U32, **fields)
    got = chip.get(0x1000, (5, 3, 1, 2), "u32", strides=(16, 16, 2, 1))
    assert got.reshape(5, 6).tolist() == [[r * 50 + c + 7 for r in range(6)] for c in range(5)]


def test_dma_general_copies_and_broadcasts(chip: Board):
    chip.dma("copy", chip.source, chip.dma_local(0x1000, 3), "dma_general", move_length=50, **U32)
    chip.dma("broadcast", chip.source, chip.dma_local(0x2000), "dma_general", move_length=9, dst_csize=4, **U32)
    assert chip.get(chip.at(0x1000, 3), (1, 1, 1, 50), "u32").reshape(-1).tolist() == list(range(7, 57))
    assert chip.get(0x2000, (1, 4, 1, 9), "u32").tolist() == [[[list(range(7, 16))]] * 4]


def gather(chip: Board, index: list[int], channels: int = 1, **fields: int) -> np.ndarray:
    """Rows of 6 items, 10 apart, of a table of 40 in DDR, onto lanes from lane 2 on."""
    chip.put(0x9000, np.reshape(index, (1, channels, -1, 1)), "u32")
    count = len(index) // channels
    fields = {"src_csize": 1, "index_csize": channels} | fields
    chip.dma(
        "copy", chip.source, chip.dma_local(0x1000, 2), "dma_gather", stride_enable=1, src_hsize=40, src_wsize=6, src_hstride=10,
        dst_csize=1, dst_cstride=64, dst_hstride=8, index_hsize=count, index_hstride=1, constant_value=99,
        index_cstride=math.ceil(4 * count / chip.spec.eu_bytes) * chip.spec.eu_bytes // 4,
        **split_address("index", chip.dma_local(0x9000)), **U32, **fields,
    )  # fmt: skip
    shape = (1, max(fields["src_csize"], fields["index_csize"]), count, 6)
    return chip.get(chip.at(0x1000, 2), shape, "u32", strides=(0, 64, 8, 1))[0]


def row(number: int) -> list[int]:
    return [99] * 6 if number >= 40 else [10 * number + w + 7 for w in range(6)]


def test_dma_gather_shares_a_table(chip: Board):
    index = [3, 0, 39, 7, 7, 40, 12, 2**32 - 1]
    assert gather(chip, index).tolist() == [[row(i) for i in index]]
    assert gather(chip, index, channels=4).tolist() == [[row(i) for i in index[c : c + 2]] for c in range(0, 8, 2)]


def test_dma_gather_shares_an_index(chip: Board):
    got = gather(chip, [4, 9], src_csize=5, src_cstride=0)
    assert got.tolist() == [[row(4), row(9)]] * 5


def test_dma_scatter_keeps_other_rows(chip: Board):
    chip.output[:] = 5
    chip.put(0x9000, np.reshape([2, 0], (1, 1, 2, 1)), "u32")
    chip.dma("copy", chip.source, chip.target, "dma_scatter", stride_enable=1, src_csize=1, src_hstride=10, src_wsize=4, dst_hsize=3,
             dst_hstride=4, index_csize=1, index_hsize=2, index_hstride=1, **split_address("index", chip.dma_local(0x9000)), **U32)  # fmt: skip
    assert chip.output[:12].reshape(3, 4).tolist() == [[17, 18, 19, 20], [5] * 4, [7, 8, 9, 10]]


def copy_row(chip: Board, source: int, target: int, count: int = 16) -> None:
    chip.dma("copy", source, target, nchw_copy=1, **U32, **dma_sizes("src", (1, 1, 1, count)), **dma_sizes("dst", (1, 1, 1, count)))


def test_ddr_that_is_not_mapped(chip: Board):
    local = chip.dma_local(0)
    with pytest.raises(SimulationError, match=rf"64 bytes at {chip.source - 64:#x} are in no mapped memory"):
        copy_row(chip, chip.source - 64, local)
    with pytest.raises(SimulationError, match=r"end 4 bytes after region"):
        copy_row(chip, local, chip.target + 4 * ITEMS - 60)
    with pytest.raises(SimulationError, match=r"is not a multiple of 4 bytes\n  in dma_tensor.copy "):
        copy_row(chip, chip.source + 2, local)


def test_local_addresses_outside_the_lane(chip: Board):
    end = chip.spec.lane_bytes
    copy_row(chip, chip.source, chip.dma_local(end - 64))
    with pytest.raises(SimulationError, match=rf"ends at byte {end + 48}, a lane has {end}"):
        copy_row(chip, chip.source, chip.dma_local(end - 16))
    with pytest.raises(SimulationError, match=r"is in no lane"):
        chip.run("ar", "copy", tsk_opd_num=1, opd0_const=1, res0_prec=2, opd0_prec=2, res0_addr=chip.spec.local_bytes, **sizes("res0", (1, 1, 1, 1)))


def fill(chip: Single, **fields: int) -> None:
    base = {"tsk_opd_num": 2, "res0_prec": 2, "opd0_prec": 2, "opd1_prec": 2, "opd1_const": 1, "opd1_addr": bits(1.0), "opd0_addr": 0x1000, "res0_addr": 0x2000}
    chip.run("ar", fields.pop("kind", "add"), **base | sizes("res0", (1, 1, 1, 4)) | fields)


@pytest.mark.parametrize(("change", "message"), [
    ({"opd0_addr": 0x1004}, "opd0 has layout 0 at 0x1004"),
    ({"res0_addr": 0x2008}, "res0 has layout 0 at 0x2008"),
    ({"opd0_addr": 0x1002, "opd0_str": 1}, "0x1002 is not a multiple of 4 bytes"),
    ({"res0_w": 0}, r"shape \(1, 1, 1, 0\) has no items"),
    ({"opd0_str": 4}, "layout code 4 is not modelled"),
    ({"opd0_prec": 5}, "mixes bfloat16, float32 and float32"),
    ({"kind": "mac"}, "mac"),
])  # fmt: skip
def test_operands_that_the_chip_cannot_take(change: dict[str, int], message: str):
    with pytest.raises(SimulationError, match=message):
        fill(Single("bm1684x"), **change)


def test_operands_on_different_lanes(chip: Single):
    with pytest.raises(SimulationError, match="opd0 and res0 start on different lanes"):
        fill(chip, opd0_addr=chip.at(0x1000, 1))


def test_families_that_are_not_modelled(chip: Single):
    with pytest.raises(SimulationError, match=r"vc.add is not modelled"):
        chip.run("vc", "add")
