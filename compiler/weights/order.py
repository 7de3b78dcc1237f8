"""Names of weights whose rows a program wants in another order: "gate.weight@down.weight.order".

The order is named as a parameter is, and row i of what the name says is row order[i] of the weight.
"""

from __future__ import annotations

from compiler.weights.stored import Array, Quantized, Weight

MARK = "@"


def in_order(weight: str, order: str) -> str:
    """The name of a weight with its rows in the order of that name."""
    return f"{weight}{MARK}{order}"


def weight_and_order(name: str) -> tuple[str, str | None]:
    """What a name says: a weight, and the order of its rows if not its own."""
    weight, _, order = name.partition(MARK)
    return weight, order or None


def rows_in(weight: Weight, order: Array) -> Weight:
    """The rows of a weight in an order."""
    if not isinstance(weight, Quantized):
        return weight[order]
    zeros, minimums = (None if part is None else part[order] for part in (weight.zeros, weight.minimums))
    return Quantized(weight.codes[order], weight.scales[order], zeros, weight.scheme, minimums)
