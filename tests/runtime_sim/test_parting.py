"""The first place where two levels of a model do not agree."""

from __future__ import annotations

import numpy as np
import pytest

import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.location import NameLoc
from compiler.ir.module import Builder
from compiler.ir.types import F32, TensorType
from dialects import tensor
from dialects.builtin import FuncOp, ReturnOp
from runtime_sim.interpret.rules import interpret
from runtime_sim.parting import Trace, first_parting, partings

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)


def traced(*numbers: float) -> Trace:
    """x plus each number in turn, each at a place of its own."""
    function = FuncOp.with_args("f", [TensorType((4, 6), F32)])
    build = Builder(function.block)
    value = function.args[0]
    for index, number in enumerate(numbers):
        value = build.add(tensor.AddOp(value, scalar=number, loc=NameLoc(f"layer.{index}"))).results[0]
    build.add(ReturnOp(value))
    trace = Trace()
    interpret(function, [X], {}.__getitem__, observer=trace)
    return trace


def test_runs_that_agree_do_not_part():
    assert first_parting(traced(1, 2, 3), traced(1, 2, 3), 0.999999) is None
    assert [p.place for p in partings(traced(1, 2), traced(1, 2))] == ["layer.0", "layer.1"]


def test_the_first_place_is_named_with_its_difference():
    parting = first_parting(traced(1, 2, 3), traced(1, -2, 3), 0.999)
    assert parting.place == "layer.1"
    assert parting.difference.max_error == pytest.approx(4)
    assert str(parting).startswith("layer.1: cosine")


def test_places_that_one_run_lacks_are_passed_over():
    assert first_parting(traced(1, 2), traced(1, 2, 3), 0.999) is None
    assert first_parting(traced(1, 2, 3), traced(1, 2), 0.999) is None


def test_numbers_that_are_not_finite_part():
    assert first_parting(traced(1), traced(float("nan")), 0.5).place == "layer.0"
