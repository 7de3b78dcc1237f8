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
from compiler.weights.stored import Quantized, Weight, rectangle
from compiler.weights.tile import Tile, pack
from dialects import tensor
from dialects.tensor import PackedType
from runtime_sim.interpret.rules import DATA_RULES, EXCHANGES, RULES, Data
from tests.helpers import random_codes, random_tensor

BF = ml_dtypes.bfloat16


def value(shape: tuple[int, ...], element=F32):
    return tensor.WeightOp(sources=["x"], types=[TensorType(shape, element)]).results[0]


def rule(op, *arrays):
    return RULES[type(op)](op, *arrays)


def supplied(op, **weights: Weight):
    codes = {name: weight for name, weight in weights.items() if isinstance(weight, Quantized)}
    data = Data(weights.__getitem__, weights, lambda name, scheme: codes.get(name) or quantize(weights[name], scheme))
    return DATA_RULES[type(op)](op, data)


def test_every_op_has_a_rule():
    ops = [cls for name, cls in OPS.items() if name.startswith("tensor.")]
    assert len(ops) > 20
    assert [cls for cls in ops if not {cls} & {*RULES, *DATA_RULES, *EXCHANGES}] == []


def test_parameters_are_joined_and_rounded_once():
    a, b = random_tensor(3, 4), random_tensor(2, 4, seed=1)
    op = tensor.WeightOp(sources=["a", "b"], types=[TensorType((5, 4), BF16)])
    np.testing.assert_array_equal(supplied(op, a=a, b=b), np.concatenate([a, b]).astype(BF))


def test_parameters_beyond_f16_stay_finite():
    op = tensor.WeightOp(sources=["a"], types=[TensorType((2,), F16)])
    assert supplied(op, a=np.array([1e6, -1e6], np.float32)).tolist() == [65504, -65504]


def decode_run(data: np.ndarray, type_: PackedType, tile: Tile) -> np.ndarray:
    """A packed tile [lanes, run] taken apart byte by byte, by what the format's description says."""
    scheme = type_.scheme
    groups = type_.columns // scheme.group
    out = np.zeros((type_.rows, type_.columns), np.float32)
    for row, column in np.ndindex(out.shape):
        slot, lane = divmod(row, len(data))
        group = slot * groups + column // scheme.group
        code = code_at(data[lane], type_, slot, column)
        zero = zero_at(data[lane], scheme, tile.zeros_offset, group)
        out[row, column] = (code - zero) * float_at(data[lane], tile.scales_offset, group)
        if scheme.minimum:
            out[row, column] += float_at(data[lane], tile.minimums_offset, group)
    return out


def float_at(run: np.ndarray, start: int, group: int) -> np.float32:
    return run[start + 2 * group : start + 2 * group + 2].copy().view(BF)[0].astype(np.float32)


def zero_at(run: np.ndarray, scheme: Scheme, start: int, group: int) -> int:
    if scheme.zeros:
        return int(run[start + group])
    return 8 if scheme.bits == 4 and not scheme.minimum else 0


def code_at(run: np.ndarray, type_: PackedType, slot: int, column: int) -> int:
    if type_.scheme.bits == 8:
        code = run[slot * type_.columns + column]
        return int(code if type_.scheme.zeros or type_.scheme.minimum else code.astype(np.int8))
    half = type_.columns // 2
    byte = int(run[slot * half + column % half])
    return byte >> 4 if column >= half else byte & 15


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(4, 32, True, BF16),
        Scheme(4, 64, False, BF16),
        Scheme(4, 32, False, BF16, minimum=True),
        Scheme(8, 16, False, BF16),
        Scheme(8, 16, True, BF16),
        Scheme(8, 32, False, BF16, minimum=True),
    ],
    ids=str,
)
def test_a_packed_tile_is_what_its_bytes_say(scheme):
    weight = random_codes((100, 128), scheme)
    type_ = PackedType(70, 64, BF16, scheme)
    op = tensor.PackedWeightOp(sources=["w"], row=20, column=64, types=[type_])
    found = supplied(op, w=weight)
    tile = Tile(70, 64, scheme, 64, 64)
    part = rectangle(weight, slice(20, 90), slice(64, 128))
    wanted = decode_run(pack(tile, part), type_, tile)
    np.testing.assert_array_equal(found, wanted.astype(BF))


def test_each_source_gives_its_share_of_a_tile():
    a, b = random_tensor(80, 64).astype(BF), random_tensor(80, 64, seed=1).astype(BF)
    eight = Scheme(8, 64, False, BF16)
    whole, both = PackedType(64, 64, BF16, eight), PackedType(128, 64, BF16, eight)
    one = [supplied(tensor.PackedWeightOp(sources=[n], row=16, column=0, types=[whole]), a=a, b=b) for n in "ab"]
    op = tensor.PackedWeightOp(sources=["a", "b"], row=16, column=0, each=True, types=[both])
    np.testing.assert_array_equal(supplied(op, a=a, b=b), np.concatenate(one))


ROPES = {  # of each mode its table, its turn, how the pairs of x lie, and those of the result
    "half": ("half", "half", "half", "half"),
    "half_tables": ("half_tables", "half", "half", "half"),
    "interleaved": ("interleaved", "interleaved", "interleaved", "interleaved"),
    "pairs_to_halves": ("half", "pairs_to_halves", "interleaved", "half"),
}
PAIRS = {"half": (slice(0, 8), slice(8, 16)), "interleaved": (slice(0, 16, 2), slice(1, 16, 2))}


@pytest.mark.parametrize("mode", ROPES)
def test_rope_by_a_row_of_the_table_turns_pairs(mode):
    table_mode, turn, source, target = ROPES[mode]
    angle = random_tensor(1, 8, seed=2)
    wide = {"half": np.tile(angle, 2), "half_tables": angle, "interleaved": np.repeat(angle, 2, axis=1)}[table_mode]
    made = tensor.RopeTableOp(cos="cos", sin="sin", mode=table_mode, types=[TensorType((1, 32), F32)])
    table = supplied(made, cos=np.cos(wide), sin=np.sin(wide))
    x = random_tensor(2, 16)
    y = rule(tensor.RopeOp(value((2, 16)), value((1, 32)), mode=turn), x, table)
    first, second = (x[:, part] for part in PAIRS[source])
    turned = (first + 1j * second) * np.exp(1j * angle)
    np.testing.assert_allclose(y[:, PAIRS[target][0]], turned.real, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y[:, PAIRS[target][1]], turned.imag, rtol=1e-6, atol=1e-6)


def test_a_table_may_have_some_columns_in_an_order_of_its_own():
    cos, sin = (random_tensor(4, 8, seed=seed) for seed in (1, 2))
    whole = tensor.RopeTableOp(cos="cos", sin="sin", types=[TensorType((4, 16), F32)])
    some = tensor.RopeTableOp(cos="cos", sin="sin", columns=(9, 0, 7), types=[TensorType((4, 3), F32)])
    expected = supplied(whole, cos=cos, sin=sin)[:, [9, 0, 7]]
    np.testing.assert_array_equal(supplied(some, cos=cos, sin=sin), expected)


@pytest.mark.parametrize("mode", ["half", "interleaved"])
def test_sines_of_a_pair_that_differ_are_each_its_own_item_s(mode):
    """y = x cos + partner(x) sin, item by item, where no angle is behind the tables."""
    cos, sin, x = (random_tensor(1, 16, seed=seed) for seed in (1, 2, 3))
    made = tensor.RopeTableOp(cos="cos", sin="sin", mode=mode, types=[TensorType((1, 32), F32)])
    y = rule(tensor.RopeOp(value((1, 16)), value((1, 32)), mode=mode), x, supplied(made, cos=cos, sin=sin))
    partner = np.empty_like(x)
    first, second = PAIRS[mode]
    partner[:, first], partner[:, second] = -x[:, second], x[:, first]
    np.testing.assert_allclose(y, x * cos + partner * sin, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "tolerance"), [(tensor.GateOp, 1e-6), (tensor.Bf16GateOp, 3e-3)])
def test_the_gate_is_finite_at_both_ends(kind, tolerance):
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4], np.float32)
    found = rule(kind(value((5,)), value((5,))), x, np.ones(5, np.float32))
    np.testing.assert_allclose(found[1:], [-0.26894143, 0, 0.7310586, 1e4], rtol=tolerance)
    assert abs(found[0]) < 1e-15


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
