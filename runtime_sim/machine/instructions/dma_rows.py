"""DMA of rows by index: gather and scatter."""

from __future__ import annotations

import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import U32, Plan
from runtime_sim.machine.instructions.transfer import Side, Transfer


def prepare_gather(core: Core, instruction: Instruction) -> Plan:
    """dst[c, i, :] = src[c, index[c, i], :]; an index out of range gives `constant_value`.

    Source and index may have one channel for all. Indices are uint32.
    """
    t = Transfer(core, instruction)
    f = t.fields
    channels = max(f["src_csize"], f["index_csize"])
    index = _index(t)
    source = _rows(t, "src", f["src_csize"], f["src_hsize"])
    target = _rows(t, "dst", channels, f["index_hsize"])
    constant = t.constant()

    def run() -> None:
        positions = np.broadcast_to(index.read()[0, :, :, 0], (channels, f["index_hsize"])).astype(np.int64)
        table = np.broadcast_to(source.read()[0], (channels, *source.shape[2:]))
        known = positions < f["src_hsize"]
        rows = np.where(known, positions, 0)
        value = np.take_along_axis(table, rows[..., None], axis=1) if channels > 1 else table[:, rows[0]]
        if not known.all():
            value = np.where(known[..., None], value, constant)
        target.write(np.ascontiguousarray(value)[None])

    return run


def prepare_scatter(core: Core, instruction: Instruction) -> Plan:
    """dst[c, index[i], :] = src[c, i, :]; rows that no index names keep their contents."""
    t = Transfer(core, instruction)
    f = t.fields
    channels = max(f["src_csize"], f["index_csize"])
    index = _index(t)
    source = _rows(t, "src", f["src_csize"], f["index_hsize"])
    target = _rows(t, "dst", channels, f["dst_hsize"])
    if f["dst_hsize"] < 1:
        raise SimulationError("a scatter into no rows")

    def run() -> None:
        positions = np.broadcast_to(index.read()[0, :, :, 0], (channels, f["index_hsize"])).astype(np.int64)
        value = np.broadcast_to(source.read()[0], (channels, *source.shape[2:]))
        out = target.read()[0].copy()
        for c in range(channels):
            known = positions[c] < f["dst_hsize"]
            out[c, positions[c][known]] = value[c][known]
        target.write(out[None])

    return run


def _rows(t: Transfer, end: str, channels: int, rows: int) -> Side:
    """Rows of src_wsize items: (1, channels, rows, width)."""
    f = t.fields
    strides = (0, f[f"{end}_cstride"], f[f"{end}_hstride"], 1) if f["stride_enable"] else None
    return t.side(end, (1, channels, rows, f["src_wsize"]), strides)


def _index(t: Transfer) -> Side:
    """One row number per row and channel: (1, channels, rows, 1)."""
    f = t.fields
    strides = (0, f["index_cstride"], f["index_hstride"], 0) if f["stride_enable"] else None
    return t.side("index", (1, f["index_csize"], f["index_hsize"], 1), strides, U32)
