"""Put the ops of a function into another order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.ir.module import Function


def reorder(function: Function, key: Callable[[int], Any]) -> None:
    """Sort the ops by a key of their positions, all but the terminator; equal ones keep their order."""
    *ops, terminator = function.block.ops.listed()
    places = sorted(range(len(ops)), key=key)
    function.block.ops.arrange([*map(ops.__getitem__, places), terminator])
