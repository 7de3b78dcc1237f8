"""Operands of 4-bit items, and how BM1684X does without."""


import numpy as np

from tests.runtime_sim.machine.instructions.board import (
    B8,
    Board,
    code_of,
    shape_fields,
    stride_fields,
)


def test_two_instructions_take_nibbles_apart():
    """Low and high halves of bytes, stored to every second byte: how BM1684X reads 4-bit weights."""
    board = Board()
    packed = np.random.default_rng(0).integers(0, 256, (1, 70, 24, 1), dtype=np.uint8)
    board.put(packed, 0)
    strides = (2 * 64, 64, 2, 1)
    shared = {"res0_prec": 0, "opd0_prec": 0, "opd1_const": 1, "tsk_opd_num": 2, "res0_str": 3}
    shared |= shape_fields(packed.shape) | stride_fields("res0", strides)
    board.run("ar", "and", **shared, opd1_addr=15, res0_addr=4096)
    board.run("ar", "ashift", **shared, opd1_addr=0xFC, opd1_sign=1, opd2_n_str=3, res0_addr=4097)
    nibbles = board.take((1, 70, 1, 48), np.uint8, 4096, strides=(128, 64, 48, 1))
    both = np.stack([packed & 15, packed >> 4], axis=3).reshape(1, 70, 1, 48)
    np.testing.assert_array_equal(nibbles, both)


def test_bm1688_reads_4_bit_items():
    board = Board(B8)
    packed = np.random.default_rng(0).integers(0, 256, (2, 40, 3, 32), dtype=np.uint8)
    board.put(packed, 0)
    zeros = np.random.default_rng(1).integers(0, 16, (2, 40, 3, 1), dtype=np.uint8)
    board.put(zeros, 2048, strides=(6, 3, 1, 1))
    board.run(
        "ar", "subs", opd0_prec=6, opd1_prec=0, res0_prec=0, tsk_opd_num=2, opd1_str=3, opd1_addr=2048,
        res0_addr=4096, **shape_fields((2, 40, 3, 64)), **stride_fields("opd1", (6, 3, 1, 0)),
    )  # fmt: skip
    codes = np.stack([packed & 15, packed >> 4], axis=4).reshape(2, 40, 3, 64)
    np.testing.assert_array_equal(
        board.take((2, 40, 3, 64), np.int8, 4096), codes.astype(np.int8) - zeros.astype(np.int8)
    )
    board.run(
        "ar", "cast", opd0_prec=6, opd0_sign=1, opd2_sign=1, res0_prec=code_of(np.float32), res0_addr=4096,
        **shape_fields((2, 40, 3, 64)),
    )  # fmt: skip
    signed = np.where(codes > 7, codes.astype(np.int8) - 16, codes)
    np.testing.assert_array_equal(board.take((2, 40, 3, 64), np.float32, 4096), signed)
