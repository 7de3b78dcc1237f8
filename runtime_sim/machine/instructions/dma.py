"""DMA of tensors, matrices and plain runs of items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.instructions.operands import Plan
from runtime_sim.machine.instructions.transfer import Shape, Side, Transfer, copy, fill
from runtime_sim.machine.memory import LocalMemory


def prepare_tensor(core: Core, instruction: Instruction) -> Plan:
    """dma_tensor: copy, transpose (n and c), broadcast over channels, collect and distribute (c and w)."""
    t = Transfer(core, instruction)
    if t.fields["fill_constant_en"]:
        return fill(t.side("dst", _target_sizes(t)), t.constant())
    if instruction.kind == "copy":
        return _copy_tensor(t)
    if instruction.kind == "broadcast":
        return _broadcast(t)
    axes = {"transpose": (1, 0, 2, 3), "collect": (0, 3, 2, 1), "distribute": (0, 3, 2, 1)}.get(
        instruction.kind
    )
    if axes is None:
        raise SimulationError(f"dma_tensor.{instruction.kind} is not modelled")
    return _permute(t, axes)


def prepare_cw_transpose(core: Core, instruction: Instruction) -> Plan:
    """dst(n, w, h, c) = src(n, c, h, w)."""
    t = Transfer(core, instruction)
    if t.fields["fill_constant_en"]:
        return fill(t.side("dst", _target_sizes(t)), t.constant())
    return _permute(t, (0, 3, 2, 1))


def _target_sizes(t: Transfer) -> Shape:
    """The dst sizes; those of src where they are left out."""
    sizes = t.sizes("dst")
    return sizes if all(sizes) else t.sizes("src")


def _copy_tensor(t: Transfer) -> Plan:
    source = t.side("src", t.sizes("src"))
    if t.fields["nchw_copy"] or _target_sizes(t) == source.shape:
        return copy(t.side("dst", source.shape), source)
    # Both ends are walked in n, c, h, w order, so a copy can change the shape.
    target = t.side("dst", _target_sizes(t))
    if np.prod(target.shape) != np.prod(source.shape):
        raise SimulationError(f"a copy of shape {source.shape} into shape {target.shape}")
    return lambda: target.write(source.read().reshape(target.shape).copy())


def _broadcast(t: Transfer) -> Plan:
    n, c, h, w = t.sizes("src")
    if c != 1:
        raise SimulationError(f"a broadcast of {c} channels")
    source = t.side("src", (n, 1, h, w))
    target = t.side("dst", (n, t.fields["dst_csize"], h, w))
    pieces = target.pieces(target.own_grids())
    (value,) = source.pieces(source.own_grids())

    def run() -> None:
        for piece in pieces:
            piece[...] = value

    return run


def _permute(t: Transfer, axes: tuple[int, int, int, int]) -> Plan:
    source = t.side("src", t.sizes("src"))
    sizes = source.shape
    target = t.side("dst", (sizes[axes[0]], sizes[axes[1]], sizes[axes[2]], sizes[axes[3]]))
    return lambda: target.write(source.read().transpose(axes).copy())


def prepare_matrix(core: Core, instruction: Instruction) -> Plan:
    """dma_matrix: a matrix R x C in flat memory and the tensor (R, ceil(C / w), 1, w) in local memory.

    `transpose` exchanges rows and columns on the way. The flat side has h and w sizes, the local side n, c
    and w.
    """
    t = Transfer(core, instruction)
    f = t.fields
    if f["nchw_copy"] or not f["stride_enable"]:
        raise SimulationError("a matrix copy needs stride_enable set and nchw_copy clear")
    to_local = isinstance(core.locate(instruction.address("dst"))[0], LocalMemory)
    flat, local = ("src", "dst") if to_local else ("dst", "src")
    rows, columns, pitch = f[f"{flat}_hsize"], f[f"{flat}_wsize"], f[f"{flat}_hstride"]
    steps = (pitch, 1)
    if instruction.kind == "transpose":
        rows, columns, steps = columns, rows, (1, pitch)
    width = f[f"{local}_wsize"]
    if not width or (f[f"{local}_nsize"], f[f"{local}_csize"]) != (rows, -(-columns // width)):
        raise SimulationError(f"a matrix of {rows} x {columns} does not match {t.sizes(local)} on the lanes")
    plans = []
    for first, count, run in _blocks(columns, width):
        shape = (rows, count, 1, run)
        in_flat = t.side(flat, shape, (steps[0], width * steps[1], 0, steps[1]))
        in_flat = replace(in_flat, address=in_flat.address + first * width * steps[1] * t.dtype.itemsize)
        in_local = _from_channel(t.side(local, shape, _local_strides(t, local, width)), first)
        plans.append(copy(in_local, in_flat) if to_local else copy(in_flat, in_local))
    return plans[0] if len(plans) == 1 else lambda: _run_all(plans)


def _run_all(plans: list[Plan]) -> None:
    for plan in plans:
        plan()


def _local_strides(t: Transfer, end: str, width: int) -> Shape:
    return t.fields[f"{end}_nstride"], t.fields[f"{end}_cstride"], width, 1


def _from_channel(side: Side, first: int) -> Side:
    """The same local tensor from channel `first` on."""
    local = side.memory
    assert isinstance(local, LocalMemory)
    lane, offset = divmod(side.address, local.lane_bytes)
    slot, lane = divmod(lane + first, local.lanes)
    offset += slot * side.strides[1] * side.dtype.itemsize
    return replace(side, address=lane * local.lane_bytes + offset)


def _blocks(columns: int, width: int) -> list[tuple[int, int, int]]:
    """(first block, blocks, columns in each): the whole blocks, then a shorter last one."""
    whole, rest = divmod(columns, width)
    out = [(0, whole, width)] if whole else []
    return [*out, (whole, 1, rest)] if rest else out


def prepare_general(core: Core, instruction: Instruction) -> Plan:
    """dma_general: a run of items as it lies in memory, to one place or the same place of several lanes."""
    t = Transfer(core, instruction)
    shape = (1, 1, 1, t.fields["move_length"])
    strides = (0, 0, 0, 1)
    lanes = t.fields["dst_csize"] if instruction.kind == "broadcast" else 1
    target = t.side("dst", (1, lanes, 1, shape[3]), strides)
    if t.fields["fill_constant_en"]:
        return fill(target, t.constant())
    source = t.side("src", shape, strides)
    (value,) = source.pieces(source.own_grids())
    pieces = target.pieces(target.own_grids())

    def run() -> None:
        for piece in pieces:
            piece[...] = value

    return run
