"""Activations in f32: what the chip computes of their formulas, beside what they are."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from dialects.activations import Activation
from passes.tensor.build import Build
from passes.tensor.formulas import ACTIVATIONS, softcap
from runtime_sim.interpret import activations
from tests.passes.programs import SPEC, Program, slots

X = np.linspace(-9, 9, 64 * 160, dtype=np.float32).reshape(1, 64, 160)


def computed(formula) -> np.ndarray:
    program = Program([X])
    x = program.load(slots(1))
    program.finish(formula(Build(program.builder, SPEC), x))
    program.lower("tensor-to-chip")
    return program.executed()[0]


@pytest.mark.parametrize("kind", get_args(Activation))
def test_an_activation_is_far_more_exact_than_16_bit(kind):
    wanted = activations.ACTIVATIONS[kind](X)
    np.testing.assert_allclose(computed(ACTIVATIONS[kind]), wanted, rtol=3e-5, atol=2e-5)


def test_a_cap_is_as_exact_as_its_size():
    found = computed(lambda build, x: softcap(build, x, 3.0))
    np.testing.assert_allclose(found, 3 * np.tanh(X / 3), rtol=0, atol=3 * 2e-5)
