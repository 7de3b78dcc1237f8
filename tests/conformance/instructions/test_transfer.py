"""DMA commands beside the vendor's C-model, with shapes, strides, lanes and item sizes drawn at random."""

import numpy as np
import pytest

from compiler.target.chips import chip
from compiler.target.isa import PRECISION, split_address
from tests.conformance.instructions.lane_images import (
    FLAT_BYTES,
    IMAGE_BYTES,
    assert_equal_images,
    flat_address,
)

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]

CASES = 40
INTO = 4096  # where in a lane results go
ITEMS = {"i8": 1, "bf16": 2, "i32": 4}


class Draw:
    """Random shapes and strides that fit the image and the flat memory."""

    def __init__(self, spec):
        self.spec = spec
        self.rng = np.random.default_rng(0)
        self.flat = flat_address(spec)

    def number(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def dtype(self):
        return list(ITEMS)[self.number(0, 2)]

    def lane(self):
        return self.number(0, 1) * self.number(0, self.spec.lanes - 1)

    def local(self, lane, offset=0):
        return self.spec.dma_local_base + lane * self.spec.lane_bytes + offset

    def shape(self, lane):
        """n, c, h, w of a tensor that takes less than 2 KiB of a lane."""
        while True:
            n, c, h, w = (self.number(1, top) for top in (3, 2 * self.spec.lanes + 5, 6, 20))
            if n * -(-(lane + c) // self.spec.lanes) * h * w * 8 < 2048:
                return n, c, h, w

    def local_strides(self, shape, item, lane, gap=0):
        _, c, h, w = shape
        unit = self.spec.eu_bytes // item
        slot = -(-h * (w + gap) // unit) * unit
        return -(-(lane + c) // self.spec.lanes) * slot, slot, w + gap, 1

    def flat_strides(self, shape):
        _, c, h, w = shape
        row = w + self.number(0, 4)
        channel = h * row + self.number(0, 7)
        return c * channel + self.number(0, 9), channel, row, 1


def ends(dtype, source, target):
    """The fields of a command between two tensors (address, shape, strides)."""
    fields = {"stride_enable": 1, "src_data_format": PRECISION[dtype]}
    for end, (address, shape, strides) in (("src", source), ("dst", target)):
        fields |= {f"{end}_{axis}size": s for axis, s in zip("nchw", shape, strict=True)}
        fields |= {f"{end}_{axis}stride": s for axis, s in zip("nchw", strides, strict=True)}
        fields |= split_address(end, address)
    return fields


def adding(*commands):
    """A case that adds these (name, kind, fields)."""

    def case(program):
        for name, kind, fields in commands:
            program.add(name, kind, **fields)

    return case


def copy(draw, number):
    """In, with strides and broadcasts; or out, and back in; or into another shape."""
    lane, dtype = draw.lane(), draw.dtype()
    shape, item = draw.shape(lane), ITEMS[dtype]
    inside = (draw.local(lane, INTO), shape, draw.local_strides(shape, item, lane, gap=number % 3))
    outside = (draw.flat, shape, draw.flat_strides(shape))
    way = number % 4
    if way == 0:
        return adding(("dma_tensor", "copy", ends(dtype, outside, inside) | {"nchw_copy": 1}))
    if way == 1:
        outside = (draw.flat, shape, (*(s * draw.number(0, 1) for s in outside[2][:3]), 1))
        return adding(("dma_tensor", "copy", ends(dtype, outside, inside) | {"nchw_copy": 1}))
    if way == 2:
        source = (draw.local(lane), *inside[1:])
        store = ends(dtype, source, outside) | {"nchw_copy": 1}
        return adding(
            ("dma_tensor", "copy", store),
            ("dma_tensor", "copy", ends(dtype, outside, inside) | {"nchw_copy": 1}),
        )
    n, c, h, w = shape
    other = (1, c, n * h, w)
    inside = (draw.local(lane, INTO), other, draw.local_strides(other, item, lane))
    return adding(("dma_tensor", "copy", ends(dtype, outside, inside)))


def permute(draw, number):
    kinds = [("dma_tensor", "transpose"), ("dma_tensor", "distribute"), ("dma_cw_transpose", "copy")]
    name, kind = kinds[number % 3]
    axes = (1, 0, 2, 3) if kind == "transpose" else (0, 3, 2, 1)
    dtype = draw.dtype()
    shape = (draw.number(1, 3), draw.number(1, 9), draw.number(1, 3), draw.number(1, 40))
    result = tuple(shape[a] for a in axes)
    inside = (draw.local(0, INTO), result, draw.local_strides(result, ITEMS[dtype], 0))
    return adding((name, kind, ends(dtype, (draw.flat, shape, draw.flat_strides(shape)), inside)))


def broadcast(draw, number):
    dtype = draw.dtype()
    n, _, h, w = draw.shape(0)
    to = (n, draw.number(1, draw.spec.lanes), h, w)
    source = (draw.flat, (n, 1, h, w), draw.flat_strides((n, 1, h, w)))
    fields = ends(dtype, source, (draw.local(0, INTO), to, draw.local_strides(to, ITEMS[dtype], 0)))
    return adding(("dma_tensor", "broadcast", fields | {"stride_enable": number % 2}))


def matrix(draw, number):
    dtype = draw.dtype()
    unit = draw.spec.eu_bytes // ITEMS[dtype]
    rows, width = draw.number(1, 3), draw.number(1, 40)
    columns = draw.number(1, 2 * draw.spec.lanes * width)
    blocks, transposed = -(-columns // width), number % 2
    tall, wide = (columns, rows) if transposed else (rows, columns)
    pitch = -(-width // unit) * unit
    ends_of = ("src", "dst") if number % 4 < 2 else ("dst", "src")
    fields = {"stride_enable": 1, "src_data_format": PRECISION[dtype]}
    fields |= {f"{ends_of[0]}_hsize": tall, f"{ends_of[0]}_wsize": wide, f"{ends_of[0]}_hstride": wide + 3}
    fields |= {f"{ends_of[1]}_nsize": rows, f"{ends_of[1]}_csize": blocks, f"{ends_of[1]}_wsize": width}
    slots = -(-blocks // draw.spec.lanes)
    fields |= {f"{ends_of[1]}_nstride": slots * pitch, f"{ends_of[1]}_cstride": pitch}
    fields |= split_address(ends_of[0], draw.flat) | split_address(ends_of[1], draw.local(0, INTO))
    shape = (1, draw.spec.lanes, 1, 200)
    look = ends("i32", (draw.flat, shape, (0, 200, 0, 1)), (draw.local(0), shape, (0, 200, 0, 1)))
    return adding(("dma_matrix", ("copy", "transpose")[transposed], fields), ("dma_tensor", "copy", look))


def run_of_items(draw, number):
    dtype, length = draw.dtype(), draw.number(1, 500)
    fields = {"src_data_format": PRECISION[dtype], "move_length": length} | split_address("src", draw.flat)
    if number % 2:
        fields |= {"dst_csize": draw.number(1, draw.spec.lanes)} | split_address("dst", draw.local(0, INTO))
        return adding(("dma_general", "broadcast", fields))
    return adding(("dma_general", "copy", fields | split_address("dst", draw.local(draw.lane(), INTO))))


def rows(draw, number):
    """Gather into lanes; scatter in DDR and look at it. Indices: the first words of the flat memory."""
    dtype = draw.dtype()
    width, count, table = draw.number(1, 20), draw.number(1, 16), draw.number(3, 40)
    tables, indices = ((1, 1), (1, 7), (7, 1), (7, 7))[draw.number(0, 3)]
    fields = {"stride_enable": 1, "src_data_format": PRECISION[dtype], "constant_value": 0x1234567}
    fields |= {"src_csize": tables, "src_wsize": width, "src_hstride": width, "src_cstride": 64 * width}
    fields |= {"index_csize": indices, "index_hsize": count, "index_cstride": 16, "index_hstride": 1}
    fields |= {"dst_hstride": width, "dst_wsize": width, "dst_csize": max(tables, indices)}
    fields |= split_address("index", draw.flat) | split_address("src", draw.flat + 4096)
    if number % 2:
        fields |= {"src_hsize": table, "dst_cstride": 512, "dst_hsize": count}
        return adding(("dma_gather", "copy", fields | split_address("dst", draw.local(0, INTO))))
    there = draw.flat + FLAT_BYTES // 2
    fields |= {"src_hsize": count, "dst_cstride": 64 * width, "dst_hsize": 64}
    shape = (1, 7, 1, 250)
    look = ends("i32", (there, shape, (0, 320, 0, 1)), (draw.local(0, INTO), shape, (0, 320, 0, 1)))
    return adding(("dma_scatter", "copy", fields | split_address("dst", there)), ("dma_tensor", "copy", look))


@pytest.mark.parametrize("chip_name", ["bm1684x", "bm1688"])
@pytest.mark.parametrize(
    "family", [copy, permute, broadcast, matrix, run_of_items, rows], ids=lambda f: f.__name__
)
def test_transfers(chip_name, family, tmp_path):
    draw = Draw(chip(chip_name))
    image = draw.rng.integers(0, 256, (draw.spec.lanes, IMAGE_BYTES), dtype=np.uint8)
    flat = draw.rng.integers(0, 256, FLAT_BYTES, dtype=np.uint8)
    # Seven lists of 16 different row numbers, some of them beyond the tables.
    flat[:448] = (
        np.stack([draw.rng.permutation(48)[:16] for _ in range(7)]).astype(np.uint32).view(np.uint8).ravel()
    )
    cases = {f"{family.__name__} {i}": family(draw, i) for i in range(CASES)}
    assert_equal_images(draw.spec, image, cases, tmp_path, flat)
