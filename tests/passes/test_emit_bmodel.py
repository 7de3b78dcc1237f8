"""Programs to streams of bytes."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.module import Function
from dialects.chip import ArOp
from passes.emit_bmodel import encode
from passes.manager import PassManager, parse_pipeline
from tests.passes.chip.random_programs import Move, program_of
from tests.passes.programs import PLACING


@pytest.fixture
def function() -> Function:
    moves = [Move("load", 0, 0), *[Move("copy", 1, 0)] * 3, Move("store", 0, 0, 1, 0)]
    module = program_of(moves, 2)
    PassManager(parse_pipeline(PLACING)).run(module)
    return module.functions()[0]


def test_instructions_that_share_attributes_are_encoded_with_addresses_of_their_own():
    moves = [Move("load", 0, 0), Move("copy", 1, 0, 0, 0), Move("copy", 2, 0, 1, 0), Move("store", 0, 0, 2, 0)]
    modules = [program_of(moves, 3) for _ in range(2)]
    _, second = copies = [op for op in modules[1].functions()[0].block.ops if isinstance(op, ArOp)]
    assert copies[0].attributes == second.attributes
    second.attributes = copies[0].attributes
    for module in modules:
        PassManager(parse_pipeline(PLACING)).run(module)
    apart, sharing = (module.functions()[0] for module in modules)
    assert encode(sharing) == encode(apart)


def test_a_value_that_no_register_holds_is_told_with_its_op(function):
    store = function.block.ops[-1]
    while not hasattr(store, "shape"):
        store = store._previous
    store.shape = (1, 1 << 20, 1, 1)
    with pytest.raises(CompileError, match=r"'chip.dma' op cannot be encoded: .* does not fit 16 bits"):
        encode(function)
