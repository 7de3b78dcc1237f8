"""SG and SGL: gathers inside a lane."""

from __future__ import annotations

import numpy as np

from compiler.target.isa import ALIGNED, COMPACT, Instruction
from runtime_sim.arrays import DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import (
    RAW,
    Operands,
    Plan,
    dtype_of,
    gather_channels,
    scatter_channels,
)


def prepare(core: Core, instruction: Instruction) -> Plan:
    """The plan of one gather; data are moved as bits, indices are unsigned."""
    operands = Operands(core, instruction)
    if operands.fields["opd3_const"]:
        raise SimulationError("gathers with a range check are not modelled")
    kinds = {
        "pe_s_gather_d1coor": _along_w,
        "pl_gather_d1coor": _shared_index,
        "pe_s_gather_line": _rows,
    }
    if instruction.kind not in kinds:
        raise SimulationError(f"{instruction.name}.{instruction.kind} is not modelled")
    return kinds[instruction.kind](operands)


def _index_type(operands: Operands) -> DType:
    dtype = dtype_of(operands.fields["opd1_prec"], 0)
    if dtype.itemsize > 2:
        raise SimulationError("indices are uint8 or uint16")
    return dtype


def _along_w(operands: Operands) -> Plan:
    """result[n, c, 0, j] = opd0[0, c, 0, index[n, c, 0, j]]."""
    n, c, _, w = operands.result_shape
    dtype = RAW[operands.dtype("res0").itemsize]
    source = operands.laid_out("opd0", (1, c, 1, operands.fields["opd0_w"]), ALIGNED, dtype)
    index = operands.laid_out("opd1", (n, c, 1, w), ALIGNED, _index_type(operands))
    result = operands.laid_out("res0", (n, c, 1, w), ALIGNED, dtype)

    def run() -> None:
        data = np.broadcast_to(gather_channels(source), (n, c, 1, operands.fields["opd0_w"]))
        scatter_channels(result, np.take_along_axis(data, gather_channels(index).astype(np.int64), axis=3))

    return run


def _shared_index(operands: Operands) -> Plan:
    """result[n, c, 0, j] = opd0[n, c, 0, index[j]]; the index is (1, count, 1, 1), compact over lanes."""
    n, c, _, w = operands.result_shape
    dtype = RAW[operands.dtype("res0").itemsize]
    source = operands.laid_out("opd0", (n, c, 1, operands.fields["opd0_w"]), ALIGNED, dtype)
    index = operands.laid_out("opd1", (1, w, 1, 1), COMPACT, _index_type(operands))
    result = operands.laid_out("res0", (n, c, 1, w), ALIGNED, dtype)

    def run() -> None:
        positions = gather_channels(index).reshape(-1).astype(np.int64)
        scatter_channels(result, gather_channels(source)[..., positions])

    return run


def _rows(operands: Operands) -> Plan:
    """result[n, c, i, :] = opd0[0, c, index[n, c, i], :]; data line-aligned, index EU-aligned."""
    n, c, h, w = operands.result_shape
    dtype = RAW[operands.dtype("res0").itemsize]
    shape = (1, c, operands.fields["opd0_h"], w)
    if operands.lane("opd0") + c > operands.core.spec.lanes:
        raise SimulationError("a gather of rows of more channels than lanes is not modelled")
    source = operands.lines("opd0", shape, dtype)
    index = operands.laid_out("opd1", (n, c, 1, h), ALIGNED, _index_type(operands))
    result = operands.lines("res0", (n, c, h, w), dtype)

    def run() -> None:
        data = np.broadcast_to(gather_channels(source), (n, *shape[1:]))
        positions = gather_channels(index).transpose(0, 1, 3, 2).astype(np.int64)
        scatter_channels(result, np.take_along_axis(data, positions, axis=2))

    return run
