"""What the tracer records: a flat graph of operations, without torch and without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(eq=False)
class GraphValue:
    """One tensor of a graph: result `index` of `node`."""

    node: Node
    index: int
    shape: tuple[int, ...]
    dtype: str  # as torch names it: "float32", "int64", "bool"


@dataclass(eq=False)
class Node:
    """One recorded operation.

    `name` is that of the function ("aten.mul.Tensor", "linear"), or of what has no operands: "input",
    "parameter" and "constant". Arguments may be nested in lists; their tensors are GraphValues.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    path: str = ""  # the module that was running, "model.layers.0.mlp"
    results: list[GraphValue] = field(default_factory=list)

    def operands(self) -> list[GraphValue]:
        found: list[GraphValue] = []
        map_values((self.args, self.kwargs), found.append)
        return found


@dataclass(eq=False)
class Constant:
    """A real array that met a traced tensor: the only argument of a node named "constant"."""

    data: np.ndarray

    @cached_property
    def digest(self) -> str:
        content = hashlib.sha256(np.ascontiguousarray(self.data).tobytes()).hexdigest()
        return f"{self.data.dtype}{list(self.data.shape)}:{content}"

    def __repr__(self) -> str:
        return self.digest


@dataclass(eq=False)
class Graph:
    """Nodes in the order of execution, and the values they are run for."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[GraphValue] = field(default_factory=list)
    outputs: list[GraphValue] = field(default_factory=list)
    parameters: dict[str, GraphValue] = field(default_factory=dict)

    def add(self, node: Node, results: list[tuple[tuple[int, ...], str]]) -> list[GraphValue]:
        """Append a node whose results have these shapes and dtypes."""
        node.results = [GraphValue(node, i, shape, dtype) for i, (shape, dtype) in enumerate(results)]
        self.nodes.append(node)
        return node.results

    def add_call(self, hidden: GraphValue, path: str) -> GraphValue:
        """Append the call of a layer, which keeps the type of the hidden state."""
        return self.add(Node("llm.layer", (hidden,), path=path), [(hidden.shape, hidden.dtype)])[0]

    def slice_to(self, targets: list[GraphValue], stop: list[GraphValue]) -> list[Node]:
        """The nodes that `targets` depend on, in order, not looking behind the values in `stop`."""
        wanted = {id(value) for value in targets}
        hidden = {id(value) for value in stop}
        chosen: list[Node] = []
        for node in reversed(self.nodes):
            if any(id(result) in wanted and id(result) not in hidden for result in node.results):
                chosen.append(node)
                wanted.update(id(value) for value in node.operands())
        return chosen[::-1]

    def fingerprint(self, prefix: str) -> str:
        """Equal for two graphs that compute the same with parameters of the same names after `prefix`."""
        return hashlib.sha256("\n".join(self._lines(prefix)).encode()).hexdigest()

    def _lines(self, prefix: str) -> Iterator[str]:
        number: dict[int, int] = {}

        def text(item: Any) -> str:
            """Of an argument, with names of parameters relative to `prefix`."""
            if isinstance(item, GraphValue):
                return f"%{number[id(item)]}"
            if isinstance(item, (tuple, list)):
                return f"[{', '.join(map(text, item))}]"
            if isinstance(item, dict):
                return text(sorted(item.items()))
            return item.removeprefix(prefix) if isinstance(item, str) else repr(item)

        for node in self.nodes:
            arguments = text(node.args), text(node.kwargs)
            for result in node.results:
                number[id(result)] = len(number)
            types = [(result.shape, result.dtype) for result in node.results]
            yield f"{node.name} {arguments} {types}"
        yield text(self.outputs)


def map_leaves(item: Any, change: Callable[[Any], Any]) -> Any:
    """`item` with all that its nested tuples, lists and dicts hold replaced by `change` of it."""
    if isinstance(item, tuple | list):
        return type(item)([map_leaves(part, change) for part in item])
    if isinstance(item, dict):
        return {key: map_leaves(part, change) for key, part in item.items()}
    return change(item)


def map_values(item: Any, change: Callable[[GraphValue], Any]) -> Any:
    """`item` with each GraphValue in it replaced by `change` of it."""
    return map_leaves(item, lambda leaf: change(leaf) if isinstance(leaf, GraphValue) else leaf)
