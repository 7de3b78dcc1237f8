"""Static memory: coefficient rows that the firmware puts beside the lanes for `tsbc` to broadcast.

Only the rows that programs have been seen to read are modelled; the rest holds the poison of unwritten
memory.
"""

from __future__ import annotations

import math

import numpy as np

from compiler.target.spec import ChipSpec
from runtime_sim.arrays import Bytes
from runtime_sim.machine.memory import POISON

EXP_TERMS, LOG_TERMS, INDICES = 32, 64, 64


def static_table(spec: ChipSpec) -> Bytes:
    """The bytes of static memory."""
    table = np.full(spec.static_bytes // 4, POISON, np.uint32)
    floats = table.view(np.float32)
    exp_at, log_at, index_at = spec.exp_table // 4, spec.log_table // 4, spec.index_table // 4
    floats[exp_at : exp_at + EXP_TERMS] = [1 / math.factorial(k) for k in range(EXP_TERMS)]
    floats[log_at : log_at + LOG_TERMS] = [0.0] + [(-1) ** (k + 1) / k for k in range(1, LOG_TERMS)]
    floats[index_at : index_at + INDICES] = range(INDICES)
    return table.view(np.uint8)
