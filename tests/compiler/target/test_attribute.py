"""What chip a module is for: said once, on the module."""

from __future__ import annotations

import re

import pytest

from compiler.diagnostics import CompileError, UserError
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ir.verify import verify
from compiler.target.attribute import set_target, target_of
from compiler.target.chips import CHIPS, chip
from dialects.builtin import ModuleOp
from tests.helpers import parse_ir


def test_any_op_of_a_module_knows_the_target():
    module, _ = parse_ir('%0 = "chip.local"() : () -> !chip.local<bytes = 64>', target=chip("cv186ah"))
    (function,) = module.functions()
    for op in (module, function, function.block.ops[0]):
        assert target_of(op) is CHIPS["cv186ah"]


def test_the_target_is_in_the_text_of_the_module():
    module = parse_module(print_module(ModuleOp.of(target="bm1688")))
    assert target_of(module) is CHIPS["bm1688"]


def test_a_module_that_names_no_chip_is_an_error_that_says_what_to_add():
    with pytest.raises(
        CompileError, match=r"has no bm.target: add \{bm.target = .*chips are bm1684x, bm1688, cv186ah"
    ):
        target_of(ModuleOp.of())


@pytest.mark.parametrize("said", ["bm9", "BM1684X", "cv186x", 1684, []])
def test_the_verifier_knows_chips_by_the_names_of_their_files(said):
    module = ModuleOp.of()
    verify(module)
    module.attributes["bm.target"] = said
    with pytest.raises(CompileError, match=rf"is for {re.escape(repr(said))} \(bm.target\); chips are bm1684x"):
        verify(module)
    with pytest.raises(CompileError, match=r"chips are bm1684x"):
        target_of(module)


def test_a_target_is_put_once():
    module = ModuleOp.of()
    for _ in range(2):
        set_target(module, chip("bm1688"))
    with pytest.raises(UserError, match=r"a.mlir is for 'bm1688' \(bm.target\), but -c asks for 'bm1684x'"):
        set_target(module, chip("bm1684x"), "a.mlir")
