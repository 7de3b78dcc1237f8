"""What a module holds, as far as the order of passes depends on it: read off its ops, so any IR has it."""

from __future__ import annotations

from collections.abc import Iterator
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
    found = Content.NOTHING
    for op in walk(module):
        for content in contents_of(op):
            found |= content
    return found


def contents_of(op: Op) -> Iterator[Content]:
    match op.opname.partition(".")[0]:
        case "llm":
            yield Content.LLM
        case "tensor":
            yield Content.TENSOR
            yield from linear_contents(op)
        case "chip":
            yield Content.CHIP
            yield from chip_contents(op)


def linear_contents(op: Op) -> Iterator[Content]:
    if isinstance(op, tensor.GatedLinearOp):
        yield Content.WHOLE
    elif isinstance(op, tensor.LinearOp):
        yield Content.WHOLE if tensor.in_ddr(op.w.type) else Content.TILED


def chip_contents(op: Op) -> Iterator[Content]:
    if isinstance(op, chip.LocalOp):
        yield Content.UNPLACED if op.offset is None else Content.PLACED
    elif isinstance(op, chip.GlobalOp):
        yield Content.UNADDRESSED if op.address is None else Content.ADDRESSED
    elif isinstance(op, chip.Instruction):
        yield Content.ORDERED if op.id else Content.UNORDERED
