"""What a model makes of tokens and positions before its first layer, in two parts.

The nets that look up the embedding are given ids and nothing else. So they end where positions come in, and
what follows (rows of learned positions, and norms behind them) stands at the start of the first block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.diagnostics import UserError
from frontend.capture import Capture
from frontend.graph import GraphValue, Node


@dataclass(frozen=True)
class Entry:
    """Of one run: `embedded` is what the tokens alone give, `rest` are the nodes from there to `given`."""

    embedded: GraphValue
    rest: list[Node]
    given: GraphValue  # what the first layer takes

    @property
    def knows_positions(self) -> bool:
        return bool(self.rest)


def entries(runs: Sequence[Capture]) -> list[Entry]:
    """Of each run, all parted at the same place; the first run has many tokens, which shows what it is."""
    place = _last_of_tokens(runs[0])
    return [_entry(run, place) for run in runs]


def _entry(run: Capture, place: int) -> Entry:
    given = run.layers[0].given
    (embedded,) = _nodes(run)[place].results
    return Entry(embedded, run.graph.slice_to([given], [embedded]), given)


def _nodes(run: Capture) -> list[Node]:
    return run.graph.slice_to([run.layers[0].given], [])


def _last_of_tokens(run: Capture) -> int:
    """The place among the nodes of the one from which on positions take part."""
    nodes, given = _nodes(run), run.layers[0].given
    of_positions = _reached(nodes, [node for node in nodes if _is_for_positions(node)])
    if given not in of_positions:
        return nodes.index(given.node)
    of_tokens = _reached(nodes, [node for node in run.graph.nodes if node.name == "input"])
    read = {value for node in nodes if node.results[0] in of_positions for value in node.operands()}
    border = [value for value in read if value in of_tokens and value not in of_positions]
    if len(border) != 1 or border[0].shape != given.shape:
        raise UserError(
            "cannot import the model: tokens and positions do not meet in one sum of states before the layers"
        )
    return nodes.index(border[0].node)


def _is_for_positions(node: Node) -> bool:
    """Whether it is a constant with more than a number, which code outside of layers makes of positions."""
    return node.name == "constant" and node.args[0].data.size > 1


def _reached(nodes: Sequence[Node], sources: Sequence[Node]) -> set[GraphValue]:
    """The values that depend on these nodes."""
    reached = {value for node in sources for value in node.results}
    for node in nodes:
        if not reached.isdisjoint(node.operands()):
            reached.update(node.results)
    return reached
