"""TSBC: transposes between lanes and columns, copies between lanes, broadcasts."""

from __future__ import annotations

import numpy as np

from compiler.target.isa import COMPACT, Instruction
from runtime_sim.arrays import DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import (
    RAW,
    Operands,
    Plan,
    gather_channels,
    scatter_channels,
)


def prepare(core: Core, instruction: Instruction) -> Plan:
    """The plan of one TSBC instruction. Items are moved as bits, of the result's width."""
    operands = Operands(core, instruction)
    dtype = RAW[operands.dtype("res0").itemsize]
    kind = instruction.kind
    if kind in ("cw_ts", "wc_ts"):
        return _transpose(operands, dtype, line_aligned=kind == "cw_ts")
    if kind in ("l_copy", "l_bc"):
        return _copy(operands, dtype, broadcast=kind == "l_bc")
    return _from_static(operands, dtype, per_channel=kind == "s_distribute")


def _transpose(operands: Operands, dtype: DType, line_aligned: bool) -> Plan:
    """result(n, w, h, c) = source(n, c, h, w)."""
    n, c, h, w = operands.result_shape
    f = operands.fields
    if (f["opd0_c"], f["opd0_w"]) != (w, c):
        raise SimulationError(f"result {c} x {w} is not the transpose of {f['opd0_c']} x {f['opd0_w']}")
    source = operands.aligned("opd0", (n, w, h, c), dtype)
    if line_aligned:
        result = operands.lines("res0", (n, c, h, w), dtype)
    else:
        result = operands.aligned("res0", (n, c, h, w), dtype)

    def run() -> None:
        # Read all first: source and result may share memory.
        value = gather_channels(source).transpose(0, 3, 2, 1).copy()
        scatter_channels(result, value)

    return run


def _copy(operands: Operands, dtype: DType, broadcast: bool) -> Plan:
    """result(n, c, h, w) = source(n, c or 0, h, w)."""
    n, c, h, w = operands.result_shape
    source = operands.aligned("opd0", (n, 1 if broadcast else c, h, w), dtype)
    result = operands.aligned("res0", (n, c, h, w), dtype)

    def run() -> None:
        value = gather_channels(source).copy()
        scatter_channels(result, np.broadcast_to(value, (n, c, h, w)))

    return run


def _from_static(operands: Operands, dtype: DType, per_channel: bool) -> Plan:
    """A row of static memory to every channel, or its item i to channel i."""
    shape = operands.result_shape
    core = operands.core
    count = shape[1] if per_channel else shape[3]
    start = operands.fields["opd0_addr"] - core.spec.tiu_static_base
    if not 0 <= start <= len(core.static) - count * dtype.itemsize:
        raise SimulationError(f"{count} items at static offset {start:#x} are not all in static memory")
    row = core.static[start : start + count * dtype.itemsize].view(dtype)
    value = row.reshape(1, -1, 1, 1) if per_channel else row.reshape(1, 1, 1, -1)
    if per_channel:
        result = operands.laid_out("res0", shape, COMPACT, dtype)
    else:
        result = operands.aligned("res0", shape, dtype)
    return lambda: scatter_channels(result, np.broadcast_to(value, shape))
