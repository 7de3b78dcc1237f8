"""Put the ops of a function into another order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.ir.module import Function


def reorder(function: Function, key: Callable[[int], Any]) -> None:
    """Sort the ops by a key of their positions, all but the terminator; equal ones keep their order."""
    *ops, terminator = function.block.ops
    for op in ops:
        op.detach()
    for position in sorted(range(len(ops)), key=key):
        function.block.insert_before(terminator, ops[position])
