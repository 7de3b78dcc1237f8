"""Gates that are rounded to bf16: what the tensor level says, and how far that is off."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialects import tensor
from dialects.activations import SWISHES
from tests.passes.programs import Program, slots
from tests.passes.tensor_to_chip.lowered import check, normal
from tests.passes.tensor_to_chip.test_arithmetic import LAYOUTS


def gate_of(gate, up, where):
    program = Program([gate, up])
    return program.finish(program.add(tensor.Bf16GateOp(program.load(where), program.load(where))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gates_of_all_layouts(layout):
    shape, where = LAYOUTS[layout]
    gate, up = 20 * normal(*shape), normal(*shape)
    gate.flat[:6] = [-300, 300, -88, 0, -1e30, 1e30]
    check(gate_of(gate, up, where), 1e-6)


def found_and_wanted(gate):
    program = gate_of(gate, np.ones_like(gate), slots(0))
    program.lower("tensor-to-chip")
    exact = gate.astype(np.float64)
    return program.executed()[0].astype(np.float64), exact / (1 + np.exp(np.minimum(-exact, 700)))


def test_gates_are_off_less_than_rounding_makes_them():
    found, wanted = found_and_wanted(np.linspace(-44, 30, 64 * 8000, dtype=np.float32).reshape(64, 8000))
    ratio = found / wanted
    assert np.abs(ratio - 1).max() < 4e-3
    assert ratio.std() < 1.2e-3
    assert abs(ratio.mean() - 1) < 3e-4


def test_gates_are_finite_at_both_ends_and_nothing_at_0():
    found, _ = found_and_wanted(np.array([[-1e4, -1e30, 0, 1e4, 1e30]], np.float32))
    assert np.abs(found[0, :2] / np.array([1e4, 1e30])).max() < 1e-19
    assert found[0, 2] == 0
    assert np.abs(found[0, 3:] / np.array([1e4, 1e30]) - 1).max() < 2e-3


def test_a_gate_takes_nine_instructions_of_f32_and_no_table():
    program = gate_of(normal(64, 64), normal(64, 64), slots(0))
    program.lower("tensor-to-chip")
    work = [op for op in program.instructions() if op.opname.startswith(("chip.ar", "chip.sfu"))]
    wide = [max(view.dtype.bits for view in (op.res, op.opd0, op.opd1 or op.opd0)) for op in work]
    assert sorted(wide) == [8] * 3 + [16] * 3 + [32] * 10


def swish_of(act, x, where=None):
    slope, cubic = SWISHES[act]
    program = Program([x])
    loaded = program.load(where or slots(0))
    return program.finish(program.add(tensor.Bf16SwishOp(loaded, slope=slope, cubic=cubic)))


@pytest.mark.parametrize("act", SWISHES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_swishes_of_all_layouts(layout, act):
    shape, where = LAYOUTS[layout]
    x = 8 * normal(*shape)
    x.flat[:5] = [-300, 300, -88, 0, 1e4]
    check(swish_of(act, x, where), 1e-6)


EXACT = {
    "silu": lambda x: x / (1 + math.exp(min(-x, 700))),
    "quick_gelu": lambda x: x / (1 + math.exp(min(-1.702 * x, 700))),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: x / 2 * math.erfc(-x / math.sqrt(2)),
}


@pytest.mark.parametrize(("act", "beside"), [("silu", 1e-9), ("quick_gelu", 1e-9), ("gelu_tanh", 1e-9), ("gelu", 3e-4)])
def test_swishes_are_the_activations_as_near_as_rounding_is(act, beside):
    x = np.linspace(-5, 12, 64 * 400, dtype=np.float32).reshape(64, 400)
    program = swish_of(act, x)
    program.lower("tensor-to-chip")
    found = program.executed()[0].astype(np.float64)
    wanted = np.vectorize(EXACT[act])(x.astype(np.float64))
    assert (np.abs(found - wanted) <= 4e-3 * np.abs(wanted) + beside).all()
