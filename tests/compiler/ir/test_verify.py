from typing import Any, ClassVar

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.core import Block, Op, Region
from compiler.ir.define import Attr, Operand, Result, op
from compiler.ir.location import NameLoc
from compiler.ir.types import BF16, F32, TensorType
from compiler.ir.verify import verify
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from tests.compiler.ir.toy import ROW, LinearOp, LoopOp, MulOp, NormOp, SiluOp, SplitOp


@pytest.fixture
def function() -> FuncOp:
    return FuncOp.with_args("f", [ROW, TensorType((8,), BF16)])


def check(function: FuncOp, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        verify(ModuleOp.of(function))


def test_a_valid_function_passes(function):
    x, weight = function.args
    norm = function.block.append(NormOp(x, weight, eps=1e-6))
    body = Block([ROW])
    body.append(MulOp(body.args[0], norm.y))
    function.block.append(LoopOp(norm.y, x, body=Region(body)))
    function.block.append(SplitOp(x, types=[ROW, ROW]))
    function.block.append(LinearOp(x, residual=x, more=[x, x], act="silu"))
    function.block.append(ReturnOp())
    verify(ModuleOp.of(function))


def test_use_before_definition(function):
    silu = SiluOp(function.args[0])
    function.block.append(SiluOp(silu.y))
    function.block.append(silu)
    check(function, "operand 0 is used before its definition or outside of its region")


def test_use_of_an_erased_op(function):
    silu = SiluOp(function.args[0])
    function.block.append(SiluOp(silu.y))
    check(function, r"operand 0 is a result of 'toy\.silu', which was erased or never inserted")


def test_value_of_a_region_used_outside(function):
    body = Block()
    silu = body.append(SiluOp(function.args[0]))
    function.block.append(LoopOp(body=Region(body)))
    function.block.append(SiluOp(silu.y))
    check(function, "operand 0 is used before its definition or outside of its region")


def test_an_isolated_op_may_not_read_values_around_it(function):
    inner = FuncOp.with_args("g", [], [ROW])
    inner.block.append(ReturnOp(function.args[0]))
    body = Block()
    body.append(inner)
    function.block.append(LoopOp(body=Region(body)))
    check(function, "outside of its region")


def test_a_function_may_not_read_values_of_another(function):
    other = FuncOp.with_args("g", [])
    other.block.append(ReturnOp(function.args[0]))
    other.function_type = type(other.function_type)((), (ROW,))
    function.block.append(ReturnOp())
    with pytest.raises(CompileError, match="outside of its region"):
        verify(ModuleOp.of(function, other))


def test_the_ops_own_verifier_runs_inside_regions(function):
    body = Block()
    body.append(NormOp(function.args[0], function.args[0], eps=1.0))
    function.block.append(LoopOp(body=Region(body)))
    check(function, r"weight is tensor<4x8xbf16>, expected \[8\]")


def test_operand_type(function):
    silu = function.block.append(SiluOp(function.args[0]))
    silu.y.type = F32
    function.block.append(SiluOp(silu.y))
    check(function, "result 'y' is f32, expected a TensorType")


def test_operand_count(function):
    function.block.append(SiluOp.build(function.args, [ROW], {}))
    check(function, "has 2 operands, expected 1")


def test_segments(function):
    function.block.append(LinearOp.build(function.args, [ROW], {"group": 1}, segments=(0, 2, 0, 0)))
    check(function, "has 0 values for operand 'x', which is one")


def test_segments_of_fewer_operands(function):
    function.block.append(LinearOp.build(function.args[:1] * 2, [ROW], {"group": 1}, segments=(1, 0, 0, 0)))
    check(function, r"has 2 operands, which its segments \(1, 0, 0, 0\) do not add up to")


def test_result_count(function):
    function.block.append(SplitOp(function.args[0], types=[]))
    check(function, "has 0 results")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"eps": "x"}, "attribute 'eps' is x, expected float"),
        ({"eps": 1.0, "act": 1}, "has no attribute 'act'; it has x, weight, eps"),
        ({}, "needs attribute eps"),
    ],
)
def test_attributes(function, attributes, message):
    function.block.append(NormOp.build(function.args, [ROW], attributes))
    check(function, message)


def test_each_value_and_field_is_looked_at(function):
    """A value that suits one field may not suit another, nor another value the same field."""
    function.block.append(NormOp.build(function.args, [ROW], {"eps": 1.0}))
    function.block.append(LinearOp(function.args[0], act="silu"))
    wrong = function.block.append(NormOp.build(function.args, [ROW], {"eps": "silu"}))
    check(function.clone(), "attribute 'eps' is silu, expected float")
    wrong.eps = 1.0
    function.block.append(LinearOp(function.args[0])).act = wrong.eps
    check(function, "attribute 'act' is 1.0, expected str")


def test_optional_attribute_type(function):
    function.block.append(LinearOp(function.args[0], act="silu")).act = 3
    check(function, "attribute 'act' is 3, expected str")


def test_terminator_in_the_middle(function):
    function.block.append(ReturnOp())
    function.block.append(ReturnOp())
    check(function, "ends its block, but other ops follow")


def test_a_type_that_makes_no_sense_is_found_where_its_value_is_made(function):
    silu = function.block.append(SiluOp(function.args[0]))
    silu.y.type = TensorType((0,), BF16)
    check(function, r"result 'y' is tensor<0xbf16>, which has sizes that are not between")
    body = Block([TensorType((4, 0), BF16)])
    other = FuncOp.with_args("g", [])
    other.block.append(LoopOp(body=Region(body)))
    check(other, r"'toy.loop' op argument 0 is tensor<4x0xbf16>, which has sizes")


def test_function_without_return(function):
    function.block.append(SiluOp(function.args[0]))
    check(function, r"does not end with func\.return")
    check(FuncOp.with_args("f", []), r"does not end with func\.return")


def test_return_types(function):
    function.block.append(ReturnOp(function.args[0]))
    check(function, "returned types do not match function_type")


def test_argument_types(function):
    function.block.append(ReturnOp())
    function.block.add_arg(F32)
    check(function, "block arguments do not match function_type")


def test_two_functions_of_one_name(function):
    function.block.append(ReturnOp())
    module = ModuleOp.of(function)
    module.block.append(function.clone())
    with pytest.raises(CompileError, match="a second function is called 'f'"):
        verify(module)


@op("toy.formed")
class FormedOp(Op):
    """Verified by its form; `place` is no part of that."""

    verifies_form = True

    x: Operand[TensorType]
    size: Attr[int]

    def verify(self) -> None:
        if self.size < 0:
            self.fail("is of a negative size")

    def verify_place(self) -> None:
        if self.loc == NameLoc("wrong"):
            self.fail("stands in a wrong place")


def formed(function: FuncOp, size: int, **named: Any) -> FormedOp:
    return function.block.append(FormedOp(function.args[0], size=size, **named))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": {"size": -1}}, "is of a negative size"),
        ({"attributes": {"size": 1.5}}, "attribute 'size' is 1.5"),
        ({"attributes": {}}, "needs attribute size"),
        ({"loc": NameLoc("wrong")}, "stands in a wrong place"),
        ({"types": [ROW]}, "has 1 results, expected 0"),
        ({"operands": []}, "has 0 operands, expected 1"),
    ],
)
def test_an_op_is_verified_behind_others_of_its_class(function, changes, message):
    """And passes behind one with the same attributes, operands and place."""
    first, second = formed(function, 1), formed(function, 1)
    second.attributes = first.attributes
    function.block.append(ReturnOp())
    verify(ModuleOp.of(function))
    parts = {"operands": first.operands, "types": (), "attributes": first.attributes} | changes
    function.block.insert_before(function.terminator, FormedOp.build(**parts))
    with pytest.raises(CompileError, match=message):
        verify(function.parent_op)


@op("toy.noted")
class NotedOp(Op):
    """Tells when it is verified."""

    verified: ClassVar[list[int]] = []

    x: Operand[TensorType]
    size: Attr[int]
    y: Result[TensorType]

    def infer_types(self) -> tuple[TensorType]:
        return (self.x.type,)

    def verify(self) -> None:
        self.verified.append(self.size)


def change_nothing(first: NotedOp, second: NotedOp) -> None:
    pass


def change_attribute(first: NotedOp, second: NotedOp) -> None:
    second.size = 3


def change_operand(first: NotedOp, second: NotedOp) -> None:
    second.x = first.x


def change_types(first: NotedOp, second: NotedOp) -> None:
    first.x.type = first.y.type = second.y.type = TensorType((8,), BF16)


def add_reader(first: NotedOp, second: NotedOp) -> None:
    assert second.parent
    second.parent.insert_before(second, SiluOp(first.y))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (change_nothing, []),
        (change_attribute, [3]),
        (change_operand, [1, 2]),  # the first has a reader less
        (change_types, [1, 2]),
        (add_reader, [1]),
    ],
)
def test_what_is_as_before_is_not_verified_again(function, change, again):
    first = function.block.append(NotedOp(function.args[0], size=1))
    second = function.block.append(NotedOp(first.y, size=2))
    function.block.append(ReturnOp())
    module = ModuleOp.of(function)
    before = verify(module)
    change(first, second)
    function.update_type()
    NotedOp.verified.clear()
    verify(module, before=before)
    assert NotedOp.verified == again
