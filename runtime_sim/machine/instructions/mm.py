"""MM: the older matrix product, here for f32, which MM2 cannot read.

A matrix R x C with column block w is the tensor (R, ceil(C / w), 1, w), EU-aligned: columns go round the
lanes.
"""

from __future__ import annotations

import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.arrays import Floats
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import F32, settle
from runtime_sim.machine.instructions.operands import (
    Operands,
    Plan,
    gather_channels,
    scatter_channels,
)
from runtime_sim.machine.memory import Pieces


def prepare(core: Core, instruction: Instruction) -> Plan:
    """result = left x right. Left is opd0_n rows of opd0_c blocks of opd0_w columns, opd1_w in the last."""
    operands = Operands(core, instruction)
    f = operands.fields
    if operands.dtype("opd0") != F32 or operands.dtype("res0") != F32:
        raise SimulationError("mm is modelled for f32 only")
    if f["left_tran"] or f["opd0_const"] or not f["opd2_const"] or f["opd2_addr"]:
        raise SimulationError("mm with a transposed or constant left operand or a bias is not modelled")
    rows, depth = f["opd0_n"], (f["opd0_c"] - 1) * f["opd0_w"] + f["opd1_w"]
    left = _matrix(operands, "opd0", rows, f["opd0_c"], f["opd0_w"])
    right = _matrix(operands, "opd1", depth, f["res0_c"], f["res0_w"])
    result = _matrix(operands, "res0", rows, f["res0_c"], f["res0_w"])

    def run() -> None:
        a = gather_channels(left).reshape(rows, -1)[:, :depth]
        b = gather_channels(right).reshape(depth, -1)
        start = gather_channels(result).reshape(rows, -1) if f["res_add"] else None
        total = _two_sums(a, b, start)
        scatter_channels(result, total.reshape(rows, f["res0_c"], 1, f["res0_w"]))

    return run


def _matrix(operands: Operands, prefix: str, rows: int, blocks: int, width: int) -> Pieces:
    return operands.aligned(prefix, (rows, blocks, 1, width), F32)


def _two_sums(a: Floats, b: Floats, start: Floats | None) -> Floats:
    """Even k add up in one accumulator, odd k in the other, from `start`; each product and sum is rounded."""
    zero = np.zeros((len(a), b.shape[1]), F32)
    totals = [zero, zero if start is None else start]
    for k, row in enumerate(b):
        totals[k & 1] = settle(totals[k & 1] + settle(settle(a[:, k : k + 1]) * settle(row)))
    return settle(totals[0] + totals[1])
