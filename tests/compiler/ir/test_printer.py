"""What is not written down: attributes that are their declared defaults."""

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.core import Block, Region
from compiler.ir.define import OPS
from compiler.ir.parser import parse_body
from compiler.ir.types import BF16, TensorType
from compiler.ir.verify import verify
from tests.compiler.ir.toy import LinearOp
from tests.helpers import parse_ir


def linear(**attributes: object) -> LinearOp:
    op = LinearOp(Block([TensorType((4, 8), BF16)]).args[0], **attributes)
    OPS["toy.loop"](body=Region(op.x.owner))
    return op.x.owner.append(op)


def test_a_default_is_not_printed_and_is_there_after_reading():
    text = str(linear(act="relu"))
    assert "group" not in text
    (read,) = parse_body(text).block.ops
    assert read.attributes == {"act": "relu", "group": 64}


def test_what_is_not_the_default_is_printed():
    assert 'act = "relu", group = 32 : i64' in str(linear(act="relu", group=32))


def test_an_attribute_with_a_default_may_not_be_missing():
    """Text would give it the default, so IR without it has no text."""
    module, _ = parse_ir(str(linear()))
    verify(module)
    del module.function("test").block.ops[0].attributes["group"]
    with pytest.raises(CompileError, match="needs attribute group"):
        verify(module)
