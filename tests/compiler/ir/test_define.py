import pytest

from compiler.ir.core import Block
from compiler.ir.define import Attr, Operand, op
from compiler.ir.types import BF16, TensorType
from tests.compiler.ir.toy import ROW, LinearOp, MulOp, NormOp, Op, SplitOp, WeightOp


@pytest.fixture
def block() -> Block:
    return Block([ROW, ROW, ROW])


def test_fields_read_operands_attributes_and_results(block):
    x, weight, _ = block.args
    norm = NormOp(x, weight, eps=1e-6)
    assert (norm.x, norm.weight, norm.eps) == (x, weight, 1e-6)
    assert norm.y is norm.result
    assert norm.y.type == ROW


def test_operands_may_be_given_by_name(block):
    x, y, _ = block.args
    assert MulOp(rhs=x, lhs=y).operands == (y, x)


def test_setting_a_field_moves_the_use(block):
    x, y, z = block.args
    mul = MulOp(x, y)
    mul.lhs = z
    assert mul.operands == (z, y)
    assert not x.has_uses()
    assert z.uses == ((mul, 0),)


def test_optional_and_variadic_operands_may_come_and_go(block):
    x, y, z = block.args
    linear = LinearOp(x, residual=y, more=[z, z])
    assert (linear.bias, linear.residual, linear.more) == (None, y, (z, z))
    linear.bias = z
    linear.more = ()
    assert (linear.bias, linear.residual, linear.more) == (z, y, ())
    assert linear.operands == (x, z, y)
    linear.residual = None
    assert (linear.bias, linear.residual) == (z, None)
    assert not y.has_uses()


def test_an_attribute_that_is_none_is_not_given(block):
    assert LinearOp(block.args[0], group=None, act=None).attributes == {"group": 64}


def test_defaults_and_optional_attributes(block):
    linear = LinearOp(block.args[0])
    assert (linear.group, linear.act) == (64, None)
    linear.act = "silu"
    assert linear.attributes == {"group": 64, "act": "silu"}
    linear.act = None
    assert linear.attributes == {"group": 64}


def test_an_int_for_a_float_attribute_becomes_a_float(block):
    assert type(NormOp(*block.args[:2], eps=1).eps) is float


def test_variadic_results_follow_the_fixed_ones(block):
    split = SplitOp(block.args[0], types=[ROW] * 3)
    assert split.first is split.results[0]
    assert split.rest == split.results[1:]


def test_a_field_called_name_leaves_opname_alone():
    weight = WeightOp(name="q_proj.weight", types=[ROW])
    assert (weight.name, weight.opname) == ("q_proj.weight", "toy.weight")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: NormOp(x, x), "needs attribute eps"),
        (lambda x: NormOp(x, eps=1.0), "needs operand 'weight'"),
        (lambda x: NormOp(x, x, x, eps=1.0), "takes 2 operands, got 3"),
        (lambda x: NormOp(x, x, epsilon=1.0), "no epsilon; it has x, weight, eps"),
        (lambda x: SplitOp(x), "does not infer its result types"),
    ],
)
def test_a_wrong_construction_says_what_is_wrong(block, make, message):
    with pytest.raises(TypeError, match=message):
        make(block.args[0])


def test_fields_of_a_base_class_come_first():
    class Base(Op):
        x: Operand[TensorType]

    @op("toy.derived")
    class Derived(Base):
        scale: Attr[float] = 1.0

    value = Block([TensorType((1,), BF16)]).args[0]
    derived = Derived(value)
    assert derived.x is value
    assert derived.scale == 1.0


def test_a_field_may_not_hide_what_every_op_has():
    with pytest.raises(AssertionError, match="a field cannot be called 'operands'"):

        @op("toy.bad")
        class Bad(Op):
            operands: Operand[TensorType]
