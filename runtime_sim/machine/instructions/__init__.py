"""What each instruction does: one module per family, one `prepare` function per instruction name.

A `prepare` function checks the fields, finds the memory they name, and returns a plan: a function that
executes the instruction each time it is called.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.target.isa import Instruction
from runtime_sim.machine.core import Core
from runtime_sim.machine.instructions import ar, cmp, dma, dma_rows, lin, mm, mm2, pord, rqdq, sfu, sg, tsbc
from runtime_sim.machine.instructions.operands import Plan


def _nothing(core: Core, instruction: Instruction) -> Plan:
    """Ends, barriers and messages order the engines; they do not touch memory."""
    del core, instruction
    return lambda: None


PREPARE: dict[str, Callable[[Core, Instruction], Plan]] = {
    "ar": ar.prepare,
    "cmp": cmp.prepare,
    "mm": mm.prepare,
    "mm2": mm2.prepare,
    "sfu": sfu.prepare,
    "pord": pord.prepare,
    "tsbc": tsbc.prepare,
    "lin": lin.prepare,
    "sg": sg.prepare,
    "sgl": sg.prepare,
    "rqdq": rqdq.prepare,
    "sys": _nothing,
    "dma_tensor": dma.prepare_tensor,
    "dma_cw_transpose": dma.prepare_cw_transpose,
    "dma_matrix": dma.prepare_matrix,
    "dma_general": dma.prepare_general,
    "dma_gather": dma_rows.prepare_gather,
    "dma_scatter": dma_rows.prepare_scatter,
    "dma_sys": _nothing,
}
