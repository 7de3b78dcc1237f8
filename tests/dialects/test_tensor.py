"""Types of results, and what the verifiers refuse."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F16, F32, I32, TensorType
from compiler.ir.verify import verify
from compiler.weights.scheme import Scheme
from dialects import tensor
from dialects.tensor import Lanes, PackedType, Replicated
from tests.helpers import parse_ir

TOKENS = Lanes(1)


def values(*types: TensorType):
    """Fresh values of these types."""
    return [tensor.WeightOp(sources=["w"], types=[type_]).results[0] for type_ in types]


def test_a_sum_takes_the_shape_of_both_and_the_lanes_of_either():
    row, rows = TensorType((1, 1, 8), F32, Replicated()), TensorType((1, 70, 1), F32, TOKENS)
    assert tensor.AddOp(*values(row, rows)).results[0].type == TensorType((1, 70, 8), F32, TOKENS)


def test_reducing_the_axis_over_the_lanes_leaves_the_result_on_all_of_them():
    (x,) = values(TensorType((1, 1, 128), F32, Lanes(2)))
    assert tensor.ReduceOp(x, kind="sum", axis=2).results[0].type == TensorType((1, 1, 1), F32, Replicated())
    (x,) = values(TensorType((1, 70, 128), F32, TOKENS))
    assert tensor.ReduceOp(x, kind="max", axis=2).results[0].type == TensorType((1, 70, 1), F32, TOKENS)


def test_a_permute_moves_the_axis_over_the_lanes_with_its_items():
    (x,) = values(TensorType((1, 4, 70, 8), F32, Lanes(2)))
    assert tensor.PermuteOp(x, order=(0, 2, 1, 3)).results[0].type == TensorType((1, 70, 4, 8), F32, TOKENS)


def test_a_concatenation_adds_up_its_axis():
    parts = values(TensorType((2, 8), F32, Lanes(0)), TensorType((2, 5), F32, Lanes(0)))
    assert tensor.ConcatOp(*parts, axis=1).results[0].type == TensorType((2, 13), F32, Lanes(0))


def test_a_dequantized_tile_has_rows_over_the_lanes():
    packed = PackedType(128, 64, BF16, Scheme(4, 32, True, F16), local=True)
    value = tensor.PackedWeightOp(sources=["w"], row=0, column=0, types=[packed]).results[0]
    assert tensor.DequantizeOp(value).results[0].type == TensorType((128, 64), BF16, Lanes(0))


def test_an_index_lies_on_the_first_lane():
    (x,) = values(TensorType((1, 128), F32, Lanes(1)))
    assert tensor.ArgmaxOp(x).results[0].type == TensorType((1, 1), I32, Lanes(0))


X = "tensor<4x8xf32>"
REFUSED = {
    "neither an array nor a number": (
        f'%y = "tensor.add"(%x) : ({X}) -> {X}',
        r"'tensor\.add' op needs either rhs or scalar",
    ),
    "both an array and a number": (
        f'%y = "tensor.add"(%x, %x) <{{scalar = 1.0 : f64}}> : ({X}, {X}) -> {X}',
        r"'tensor\.add' op needs either rhs or scalar",
    ),
    "a slice that ends outside": (
        f"""%y = "tensor.slice"(%x) <{{starts = array<i64: 0, 4>, sizes = array<i64: 4, 5>}}>
            : ({X}) -> tensor<4x5xf32>""",
        r"\[0, 4\] \+ \[4, 5\] is outside \[4, 8\]",
    ),
    "a slice of another rank": (
        f'%y = "tensor.slice"(%x) <{{starts = array<i64: 0>, sizes = array<i64: 4>}}> : ({X}) -> tensor<4xf32>',
        r"\[0\] \+ \[4\] is outside \[4, 8\]",
    ),
    "a reshape to another size": (
        f'%y = "tensor.reshape"(%x) : ({X}) -> tensor<4x9xf32>',
        r"makes tensor<4x9xf32> of tensor<4x8xf32>",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_verifiers_refuse(case):
    text, message = REFUSED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])


def test_shapes_that_do_not_broadcast_are_refused():
    add = tensor.AddOp(*values(TensorType((4, 8), F32, Lanes(0)), TensorType((4, 7), F32, Lanes(0))))
    with pytest.raises(CompileError, match=r"do not broadcast"):
        add.verify()
