"""Weights of a softmax: powers of two of 16 bit, and how far they are off."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.ir.types import BF16, F16, F32
from dialects import tensor
from tests.passes.programs import Program, array, slots
from tests.passes.tensor_to_chip.lowered import RNG, check, kinds, normal

ROWS = {  # shape and layout
    "tokens": ((1, 70, 48), slots(1)),
    "heads of tokens": ((3, 66, 20), slots(1)),
    "heads": ((6, 41), slots(0)),
    "more heads than lanes": ((71, 40), slots(0)),
}
ULP = 2.0**-7  # of bf16 between 1 and 2


def weights(x, top, steps=1, element=BF16, layout=None):
    """A program of the op on rows over the lanes."""
    program = Program([x, top])
    layout = layout or slots(x.ndim - 2)
    operands = program.load(layout), program.load(layout)
    made = program.make(tensor.SoftmaxWeightsOp, *operands, steps=steps, type_=array(x.shape, element, layout))
    return program.finish(made)


def executed(program):
    program.lower("tensor-to-chip")
    return program.executed()[0].astype(np.float64)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("steps", [1, 64, 256])
@pytest.mark.parametrize(("element", "tolerance"), [(BF16, ULP / 2), (F16, 2.0**-11)])
def test_rows_below_their_top(rows, steps, element, tolerance):
    shape, layout = ROWS[rows]
    x = (9 * steps * normal(*shape)).astype(np.float32)
    check(weights(x, x.max(axis=-1, keepdims=True), steps, element, layout), tolerance)


@pytest.fixture(scope="module")
def relative():
    """Powers between 2**-126 and 1 divided by the exact ones, and how many units in the last place they are off."""
    x = np.linspace(-125.999 * 256, 0, 64 * 8000).astype(np.float32).reshape(64, 8000)
    found = executed(weights(x, np.zeros((64, 1), np.float32), 256))
    wanted = np.exp2(x.astype(np.float64) / 256)
    return found / wanted, (found - wanted) / (np.exp2(np.floor(np.log2(wanted))) * ULP)


def test_weights_are_little_more_than_a_unit_in_the_last_place_off(relative):
    _, units = relative
    assert np.abs(units).max() < 1.3
    assert np.sqrt((units**2).mean()) < 0.42


def test_weights_are_off_little_beside_each_other(relative):
    """Since they are divided by their sum."""
    ratio, _ = relative
    assert (ratio / ratio.mean()).std() < 2.25e-3
    assert abs(ratio.mean() - 1) < 1e-3


@pytest.mark.parametrize("element", [BF16, F16])
def test_what_is_hidden_weighs_nothing_and_equal_ones_weigh_the_same(element):
    rows = [[0, -14404, -1e30, -127.5], [-14404, -14404, -14404, -1e30], [-3e4] * 4, [9e3, 9e3 - 1, -14404, 9e3 - 2]]
    x = np.array(rows, np.float32)
    found = executed(weights(x, x.max(axis=-1, keepdims=True), element=element))
    assert found.tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1] * 4, [1, 0.5, 0, 0.25]]


def test_rows_so_low_that_their_steps_are_coarser_than_a_power_stay_equal():
    """As where every key is hidden by the lowest of numbers."""
    x = np.full((3, 40), -1.0e9 * np.log2(np.e) * 256, np.float32)
    found = executed(weights(x, x[:, :1], 256))
    assert np.unique(found).size == 1
    assert 0.5 <= found[0, 0] <= 2


def test_a_fixed_point_power_takes_one_instruction_of_f32():
    program = weights(normal(64, 64), np.full((64, 1), 9, np.float32), 256)
    program.lower("tensor-to-chip")
    work = [op for op in program.instructions() if op.opname == "chip.ar" and op.shape[-1] == 64]
    assert [op.kind for op in work] == ["add", "sub", "muls", "muls", "subs", "select_gt", "mul"]
    wide = [max(view.dtype.bits for view in (op.res, op.opd0, op.opd1 or op.opd0)) for op in work]
    assert wide == [32, 8, 8, 8, 16, 8, 16]


def test_infinite_scores_weigh_nothing():
    x = np.array([[0, -np.inf, -3.4e38, -256 * 127.5], [-1, 0, -np.inf, -np.inf]], np.float32)
    found = executed(weights(x, np.zeros((2, 1), np.float32), 256))
    assert np.allclose(found, [[1, 0, 0, 0], [0.9973, 1, 0, 0]], atol=3e-3)


@pytest.mark.parametrize("rows", ROWS)
def test_what_a_mask_of_bf16_hides_weighs_nothing(rows):
    shape, layout = ROWS[rows]
    heads, others = (shape[0], (1, *shape[1:])) if len(shape) == 3 else (1, shape)  # heads share a mask
    mask = RNG.choice(np.array([0, -0.0, -9984, -1e-36, -1e-38, 2], ml_dtypes.bfloat16), others)
    x = -256 * np.abs(normal(*shape))
    program = Program([x, np.zeros((*shape[:-1], 1), np.float32), mask])
    scores, top, rule = (program.load(layout) for _ in range(3))
    hiding = program.add(tensor.HidingOp(rule, times=heads))
    type_ = array(shape, BF16, layout)
    program.finish(program.make(tensor.SoftmaxWeightsOp, scores, top, hiding, steps=256, type_=type_))
    (found,) = program.interpreted()
    check(program)
    shown = np.abs(mask.astype(np.float32)) < 2.0**-125
    assert np.array_equal(found != 0, np.broadcast_to(shown, shape))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("element", [BF16, F16])
def test_the_sum_of_rows_of_16_bit(rows, element):
    shape, layout = ROWS[rows]
    program = Program([normal(*shape, dtype=element.numpy)])
    check(program.finish(program.add(tensor.ReduceOp(program.load(layout), kind="sum", axis=len(shape) - 1))), 1e-6)


def test_sums_share_one_column_of_ones():
    program = Program([normal(2, 64, 80, dtype=ml_dtypes.bfloat16), normal(64, 32, dtype=ml_dtypes.bfloat16)])
    rows = program.load(slots(1)), program.load(slots(0))
    sums = [program.add(tensor.ReduceOp(x, kind="sum", axis=len(x.type.shape) - 1)) for x in reversed(rows)]
    check(program.finish(*sums), 1e-6)
    assert [kind for kind in kinds(program) if kind.startswith(("ar", "matmul"))] == ["ar.copy", "matmul.nn", "matmul.nn"]


def test_heads_of_whole_rows_of_lanes_are_one_product():
    program = Program([normal(3, 128, 40, dtype=ml_dtypes.bfloat16), normal(24, 40, dtype=ml_dtypes.bfloat16)])
    operands = program.load(slots(1)), program.load(slots(0))
    check(program.finish(program.make(tensor.MatmulOp, *operands, transpose_b=True, type_=array((3, 128, 24), F32, slots(1)))), 1e-6)
    assert kinds(program).count("matmul.nt") == 1
