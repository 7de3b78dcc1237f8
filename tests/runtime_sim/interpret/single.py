"""Ops one by one, from their texts."""

from __future__ import annotations

import ml_dtypes
import numpy as np

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from runtime_sim.interpret.rules import interpret
from tests.helpers import parse_ir


def run(text: str, *inputs: np.ndarray, **named: np.ndarray) -> np.ndarray:
    """The result of one op, given by its text with operands %0, %1, ... in order of appearance."""
    module, _ = parse_ir(text)
    (result,) = interpret(module.function("test"), inputs, named.__getitem__, named)
    return result


def types(*arrays: np.ndarray) -> str:
    names = {np.dtype(np.float32): "f32", np.dtype(ml_dtypes.bfloat16): "bf16", np.dtype(np.int32): "i32"}
    return ", ".join(f"tensor<{'x'.join(map(str, a.shape))}x{names[a.dtype]}>" for a in arrays)


def f64(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)
