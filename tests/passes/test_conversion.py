"""The table of a conversion's rules."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from dialects import tensor
from passes.conversion import Rules
from tests.helpers import parse_ir

X = "tensor<4x64xf32, #tensor.lanes<axis = 0>>"


def op_of(text: str):
    return parse_ir(f"{text} : ({X}) -> {X}")[0].functions()[0].block.ops.first


def test_the_rule_of_an_op_is_that_of_its_class_or_of_the_nearest_it_derives_from():
    lowers = Rules("nothing")

    @lowers(tensor.Binary, tensor.RsqrtOp)
    def general(): ...

    @lowers(tensor.MulOp)
    def special(): ...

    assert lowers.find(op_of('%y = "tensor.add"(%x) <{scalar = 1.0 : f64}>')) is general
    assert lowers.find(op_of('%y = "tensor.rsqrt"(%x)')) is general
    assert lowers.find(op_of('%y = "tensor.mul"(%x) <{scalar = 1.0 : f64}>')) is special


def test_an_op_without_a_rule_is_named_with_what_there_is_no_way_to():
    with pytest.raises(CompileError, match=r"'tensor\.exp2' op has no lowering to the moon"):
        Rules("the moon").find(op_of('%y = "tensor.exp2"(%x)'))


def test_an_op_has_one_rule():
    lowers = Rules("nothing")
    lowers(tensor.AddOp)(print)
    with pytest.raises(AssertionError, match="AddOp has a rule already"):
        lowers(tensor.AddOp)(print)
