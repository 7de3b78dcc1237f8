"""Random chip programs: rows of 64 x 16 numbers copied and moved between a few buffers and DDR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from compiler.ir.core import Value
from compiler.ir.module import Builder
from compiler.ir.types import F32, TensorType
from dialects import chip
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.chip import GlobalOp, GlobalType, LocalOp, LocalType, View, constant
from passes import load_all

ROWS = 3  # EU widths of each local buffer
SHAPE = (1, 64, 1, 16)  # one EU width in every lane
BYTES = 64 * 16 * 4
SPILLED = (  # views of one region, in part of the same bytes: a row of numbers, and each second of its lines
    View(F32),
    View(F32, 0, 0, (0, 32, 0, 1)),
    View(F32, 64, 0, (0, 32, 0, 1)),
)


@dataclass(frozen=True)
class Move:
    """One instruction: what it does, and the buffers and rows it touches."""

    kind: str  # fill, copy, load, store, spill, reload
    target: int
    target_row: int
    source: int = 0
    source_row: int = 0


def moves(buffers: int) -> st.SearchStrategy[list[Move]]:
    index, row = st.integers(0, buffers - 1), st.integers(0, ROWS - 1)
    kinds = st.sampled_from(["fill", "copy", "load", "store", "spill", "reload"])
    return st.lists(st.builds(Move, kinds, index, row, index, row), min_size=1, max_size=14)


def program_of(moves: list[Move], buffers: int, sizes: Sequence[int] = ()) -> ModuleOp:
    """Loads read input k, stores write output k; what is spilled to scratch memory is also read there.

    Local buffers are as large as what is in them, or have `sizes` in bytes.
    """
    load_all()
    function = FuncOp.with_args("test", [])
    build = Builder(function.block)
    types = [LocalType(size) for size in sizes or [64 * ROWS] * buffers]
    local = [build.add(LocalOp(types=[type_])).results[0] for type_ in types]
    counts = {"input": 0, "output": 0}

    def outside(space: str) -> Value:
        type_ = TensorType((64, 16), F32)
        op = GlobalOp(space=space, index=counts[space], tensor=type_, types=[GlobalType(BYTES)])
        counts[space] += 1
        return build.add(op).results[0]

    scratch = build.add(GlobalOp(space="scratch", types=[GlobalType(2 * BYTES)])).results[0]
    for move in moves:
        target, source = local[move.target], local[move.source]
        res, opd = (View(F32, 64 * row) for row in (move.target_row, move.source_row))
        ddr = View(F32)
        if move.kind == "load":
            op = chip.DmaTensorOp(target, outside("input"), kind="copy", shape=SHAPE, res=res, opd0=ddr)
        elif move.kind == "store":
            op = chip.DmaTensorOp(outside("output"), source, kind="copy", shape=SHAPE, res=ddr, opd0=opd)
        elif move.kind == "spill":
            res = SPILLED[move.target_row]
            op = chip.DmaTensorOp(scratch, source, kind="copy", shape=SHAPE, res=res, opd0=opd)
        elif move.kind == "reload":
            opd = SPILLED[move.source_row]
            op = chip.DmaTensorOp(target, scratch, kind="copy", shape=SHAPE, res=res, opd0=opd)
        elif move.kind == "copy":
            op = chip.ArOp(target, source, None, kind="copy", shape=SHAPE, res=res, opd0=opd)
        else:
            number = constant(float(move.source_row), F32)
            op = chip.ArOp(target, None, None, kind="copy", shape=SHAPE, res=res, opd0=number)
        build.add(op)
    build.add(ReturnOp())
    return ModuleOp.of(function, target="bm1684x")
