"""Messages by which cores meet, as instructions of either engine name them."""

from __future__ import annotations

from typing import NamedTuple

from compiler.target.isa import Instruction

# By family: the field with the operand, where in it the members are, and the bits of those.
OPERANDS = {"sys": ("imm", 16, 0x7), "dma_sys": ("constant_value", 8, 0x7F)}
NUMBER_BITS = 0x7F


class Message(NamedTuple):
    """A send, or a wait for as many sends as there are members; each of them sends once and waits once."""

    is_send: bool
    number: int
    members: int

    def __str__(self) -> str:
        return f"message {self.number} of {self.members}"


def message_of(instruction: Instruction) -> Message | None:
    """What an instruction sends or waits for; None for all others."""
    if instruction.name not in OPERANDS:
        return None
    kind = instruction.kind.removesuffix("_msg")
    if kind not in ("send", "wait"):
        return None
    name, shift, mask = OPERANDS[instruction.name]
    operand = instruction.fields[name]
    return Message(kind == "send", operand & NUMBER_BITS, operand >> shift & mask)
