"""Operands of 4-bit items: two to a byte, the even one in the low half."""

from __future__ import annotations

import numpy as np

from compiler.sizes import round_up
from compiler.target.isa import ALIGNED, STRIDED
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import U8, Operands
from runtime_sim.machine.memory import Pieces


def packed_source(operands: Operands) -> Pieces:
    """The bytes of opd0, [n, slots, lanes, h, w / 2]; rows must begin on whole bytes."""
    n, c, h, w = operands.result_shape
    f = operands.fields
    operands.check_lane("opd0")
    slot = round_up(h * w, 2 * operands.core.spec.eu_bytes) if f["opd0_str"] == ALIGNED else h * w
    strides = (-(-(operands.lane("opd0") + c) // operands.core.spec.lanes) * slot, slot, w, 1)
    if f["opd0_str"] == STRIDED:
        strides = (f["opd0_n_str"], f["opd0_c_str"], f["opd0_h_str"], f["opd0_w_str"])
    if f["opd0_const"] or strides[3] != 1 or any(x % 2 for x in (*strides[:3], w)):
        raise SimulationError("a 4-bit operand whose rows are not whole bytes is not modelled")
    in_bytes = (strides[0] // 2, strides[1] // 2, strides[2] // 2, 1)
    return operands.at("opd0", (n, c, h, w // 2), in_bytes, U8)


def unpack(packed: Array, dtype: DType) -> Array:
    """Bytes [..., w / 2] as 8-bit items [..., w], with or without sign."""
    out = np.empty((*packed.shape[:-1], packed.shape[-1], 2), np.uint8)
    out[..., 0], out[..., 1] = packed & 15, packed >> 4
    items = out.reshape(*packed.shape[:-1], -1)
    return items if dtype == U8 else (items << 4).view(np.int8) >> 4
