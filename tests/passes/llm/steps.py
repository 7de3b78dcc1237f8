"""Nets as steps of several devices, run in turn, with what goes from step to step by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir.module import Function
from dialects.nets import net_of
from runtime_sim.interpret.rules import interpret

Array = np.ndarray[Any, Any]


def run_steps(
    steps: Sequence[Function], inputs: Sequence[Sequence[Array]], weights: Any, tables: Mapping[str, Array]
) -> list[dict[int, Array]]:
    """What each device gives of the net's outputs, by their places; `inputs` are those of each device."""
    found: list[dict[int, Array]] = [{} for _ in inputs]
    known: dict[str, Array] = {}
    for step in sorted(steps, key=lambda step: net_of(step).part.step):
        net, device = net_of(step), net_of(step).part.device
        given = []
        for stated in net.inputs:
            array = known[stated.name_on(device)] if stated.hidden else inputs[device][stated.index]
            known.setdefault(stated.name_on(device), array)
            given.append(array)
        for stated, array in zip(net.outputs, interpret(step, given, weights, tables), strict=True):
            known[stated.name_on(device)] = array
            if not stated.hidden:
                found[device][stated.index] = array
    return found
