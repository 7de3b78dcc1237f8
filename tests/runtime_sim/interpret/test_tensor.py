"""The rules of the tensor level where they are more than one call of numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.define import OPS
from compiler.ir.types import BF16, F16, F32, TensorType
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import rectangle
from compiler.weights.tile import Tile, pack
from dialects import tensor
from dialects.tensor import PackedType
from runtime_sim.interpret.rules import DATA_RULES, RULES, Data
from tests.helpers import random_tensor

BF = ml_dtypes.bfloat16


def value(shape: tuple[int, ...], element=F32):
    return tensor.WeightOp(sources=["x"], types=[TensorType(shape, element)]).results[0]


def rule(op, *arrays):
    return RULES[type(op)](op, *arrays)


def supplied(op, **weights: np.ndarray):
    data = Data(weights.__getitem__, weights, lambda name, scheme: quantize(weights[name], scheme))
    return DATA_RULES[type(op)](op, data)


def test_every_op_has_a_rule():
    ops = [cls for name, cls in OPS.items() if name.startswith("tensor.")]
    assert len(ops) > 20
    assert [cls for cls in ops if cls not in RULES and cls not in DATA_RULES] == []


def test_parameters_are_joined_and_rounded_once():
    a, b = random_tensor(3, 4), random_tensor(2, 4, seed=1)
    op = tensor.WeightOp(sources=["a", "b"], types=[TensorType((5, 4), BF16)])
    np.testing.assert_array_equal(supplied(op, a=a, b=b), np.concatenate([a, b]).astype(BF))


def test_parameters_beyond_f16_stay_finite():
    op = tensor.WeightOp(sources=["a"], types=[TensorType((2,), F16)])
    assert supplied(op, a=np.array([1e6, -1e6], np.float32)).tolist() == [65504, -65504]


def decode_run(data: np.ndarray, type_: PackedType, scales_at: int, zeros_at: int) -> np.ndarray:
    """A packed tile [lanes, run] taken apart byte by byte, by what the format's description says."""
    scheme = type_.scheme
    groups = type_.columns // scheme.group
    out = np.zeros((type_.rows, type_.columns), np.float32)
    for row, column in np.ndindex(out.shape):
        slot, lane = divmod(row, len(data))
        group = slot * groups + column // scheme.group
        code = code_at(data[lane], type_, slot, column)
        zero = zero_at(data[lane], scheme, zeros_at, group)
        out[row, column] = (code - zero) * scale_at(data[lane], scales_at, group)
    return out


def scale_at(run: np.ndarray, start: int, group: int) -> np.float32:
    return run[start + 2 * group : start + 2 * group + 2].copy().view(BF)[0].astype(np.float32)


def zero_at(run: np.ndarray, scheme: Scheme, start: int, group: int) -> int:
    if scheme.bits == 8:
        return 0
    return int(run[start + group]) if scheme.zeros else 8


def code_at(run: np.ndarray, type_: PackedType, slot: int, column: int) -> int:
    if type_.scheme.bits == 8:
        return int(run[slot * type_.columns + column].astype(np.int8))
    half = type_.columns // 2
    byte = int(run[slot * half + column % half])
    return byte >> 4 if column >= half else byte & 15


@pytest.mark.parametrize(("bits", "zeros", "group"), [(4, True, 32), (4, False, 64), (8, False, 16)])
def test_a_packed_tile_is_what_its_bytes_say(bits, zeros, group):
    weight = random_tensor(100, 128, seed=3).astype(BF)
    scheme = Scheme(bits, group, zeros, BF16)
    type_ = PackedType(70, 64, BF16, scheme)
    op = tensor.PackedWeightOp(sources=["w"], row=20, column=64, types=[type_])
    found = supplied(op, w=weight)
    tile = Tile(70, 64, scheme, 64, 64)
    part = rectangle(quantize(weight, scheme), slice(20, 90), slice(64, 128))
    wanted = decode_run(pack(tile, part), type_, tile.scales_offset, tile.zeros_offset)
    np.testing.assert_array_equal(found, wanted.astype(BF))


def test_each_source_gives_its_share_of_a_tile():
    a, b = random_tensor(80, 64).astype(BF), random_tensor(80, 64, seed=1).astype(BF)
    eight = Scheme(8, 64, False, BF16)
    whole, both = PackedType(64, 64, BF16, eight), PackedType(128, 64, BF16, eight)
    one = [supplied(tensor.PackedWeightOp(sources=[n], row=16, column=0, types=[whole]), a=a, b=b) for n in "ab"]
    op = tensor.PackedWeightOp(sources=["a", "b"], row=16, column=0, each=True, types=[both])
    np.testing.assert_array_equal(supplied(op, a=a, b=b), np.concatenate(one))


def test_rope_by_a_row_of_the_table_rotates_halves():
    angle = random_tensor(1, 8, seed=2)
    cos, sin = (np.concatenate([f(angle)] * 2, axis=1) for f in (np.cos, np.sin))
    table = supplied(tensor.RopeTableOp(cos="cos", sin="sin", types=[TensorType((1, 32), F32)]), cos=cos, sin=sin)
    x = random_tensor(2, 16)
    op = tensor.RopeOp(value((2, 16)), value((1, 32)))
    low, high = x[:, :8], x[:, 8:]
    wanted = np.concatenate(
        [low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)], axis=1
    )
    np.testing.assert_allclose(rule(op, x, table), wanted, rtol=1e-6, atol=1e-6)


def test_the_gate_is_finite_at_both_ends():
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4], np.float32)
    op = tensor.GateOp(value((5,)), value((5,)))
    found = rule(op, x, np.ones(5, np.float32))
    np.testing.assert_allclose(found[1:4], [-0.26894143, 0, 0.7310586], rtol=1e-6)
    assert abs(found[0]) < 1e-30
    assert found[4] == 1e4


def test_argmax_takes_the_first_of_equals():
    op = tensor.ArgmaxOp(value((1, 4)))
    found = rule(op, np.array([[1, 7, 7, 3]], np.float32))
    assert found.dtype == np.int32
    assert found.tolist() == [[1]]


def test_the_largest_come_in_order_of_size_and_equals_in_order_of_place():
    op = tensor.TopkOp(value((1, 5)), k=3)
    values, indices = rule(op, np.array([[1, 7, 9, 7, 3]], np.float32))
    assert indices.dtype == np.int32
    assert (values.tolist(), indices.tolist()) == ([[9, 7, 7]], [[2, 1, 3]])


def test_a_sum_is_scaled_term_by_term():
    op = tensor.ReduceOp(value((2, 4)), kind="sum", axis=1, scale=0.25)
    assert rule(op, np.full((2, 4), 3e38, np.float32)).tolist() == [[np.float32(3e38)]] * 2


def test_a_stored_weight_is_decoded_to_16_bit():
    weight = random_tensor(8, 64).astype(BF)
    scheme = Scheme(4, 32, True, F16)
    op = tensor.WeightOp(sources=["w"], types=[TensorType((8, 64), BF16, scheme)])
    np.testing.assert_array_equal(supplied(op, w=weight), quantize(weight, scheme).dequantize().astype(BF))
