"""What a module holds, as far as the order of passes depends on it: read off its ops, so any IR has it."""

from __future__ import annotations

from enum import Flag, auto

from compiler.ir.core import Op
from compiler.ir.module import Module, walk
from dialects import chip, tensor


class Content(Flag):
    """Each is something that is there; a module without any linear or buffer suits every pass about them."""

    NOTHING = 0
    LLM = auto()  # ops of the llm dialect
    TENSOR = auto()  # ops of the tensor dialect
    WHOLE = auto()  # of them, linears whose weight is not cut into tiles
    TILED = auto()  # of them, linears whose weight is a tile
    CHIP = auto()  # buffers and instructions
    UNPLACED = auto()  # local buffers without an offset
    PLACED = auto()  # local buffers with an offset
    UNADDRESSED = auto()  # regions of DDR without an address
    ADDRESSED = auto()  # regions of DDR with an address
    UNORDERED = auto()  # instructions without ids and waits
    ORDERED = auto()  # instructions with ids and waits

    def __str__(self) -> str:
        return ", ".join(self.words()) or "nothing"

    def words(self) -> list[str]:
        return [member.name.lower() for member in Content if member in self and member.name and member.value]


READY = Content.CHIP | Content.PLACED | Content.ADDRESSED | Content.ORDERED  # to be encoded


def contents(module: Module) -> Content:
    """What a module holds. Ops come in runs of a kind, and adding to a flag is dear."""
    found = last = Content.NOTHING
    for op in walk(module):
        content = contents_of(op)
        if content is not last:
            found |= content
            last = content
    return found


def contents_of(op: Op) -> Content:
    """What there is because of an op."""
    if isinstance(op, chip.Instruction):
        return ORDERED if op.id else UNORDERED
    if isinstance(op, chip.LocalOp):
        return UNPLACED if op.offset is None else PLACED
    if isinstance(op, chip.GlobalOp):
        return UNADDRESSED if op.address is None else ADDRESSED
    if isinstance(op, tensor.GatedLinearOp | tensor.ActLinearOp):
        return WHOLE
    if isinstance(op, tensor.LinearOp):
        return WHOLE if tensor.in_ddr(op.w.type) else TILED
    return BY_DIALECT.get(op.opname.partition(".")[0], Content.NOTHING)


BY_DIALECT = {"llm": Content.LLM, "tensor": Content.TENSOR, "chip": Content.CHIP}
WHOLE, TILED = Content.TENSOR | Content.WHOLE, Content.TENSOR | Content.TILED
UNPLACED, PLACED = Content.CHIP | Content.UNPLACED, Content.CHIP | Content.PLACED
UNADDRESSED, ADDRESSED = Content.CHIP | Content.UNADDRESSED, Content.CHIP | Content.ADDRESSED
UNORDERED, ORDERED = Content.CHIP | Content.UNORDERED, Content.CHIP | Content.ORDERED
