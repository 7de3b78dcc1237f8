"""What instructions say of messages."""

from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import isa_for
from compiler.target.messages import Message, message_of


def decoded(name, kind, **fields):
    isa = isa_for(BM1688)
    return isa.decode(isa.layout(name).engine, isa.encode(name, kind, fields))[0]


def test_both_engines_send_and_wait():
    assert message_of(decoded("sys", "send_msg", imm=4 << 16 | 30)) == Message(True, 30, 4)
    assert message_of(decoded("sys", "wait_msg", imm=4 << 16 | 30)) == Message(False, 30, 4)
    assert message_of(decoded("dma_sys", "send", constant_value=2 << 8 | 31)) == Message(True, 31, 2)
    assert message_of(decoded("dma_sys", "wait", constant_value=2 << 8 | 31)) == Message(False, 31, 2)
    assert str(message_of(decoded("dma_sys", "wait", constant_value=2 << 8 | 31))) == "message 31 of 2"


def test_no_other_instruction_has_one():
    assert message_of(decoded("sys", "end")) is message_of(decoded("dma_sys", "nop")) is None
    assert message_of(decoded("ar", "add")) is None
