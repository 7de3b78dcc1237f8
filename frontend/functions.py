"""Recorded graphs as functions of the llm dialect, with the signatures that a client expects."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.diagnostics import UserError
from compiler.ir.core import Value
from compiler.ir.location import NameLoc
from compiler.ir.module import Builder
from compiler.ir.types import F32, I32, ElementType, TensorType
from compiler.weights.scheme import Scheme
from dialects import llm
from dialects.builtin import FuncOp, ReturnOp
from dialects.nets import KEY, NetAttr
from frontend import experts, patches, routing
from frontend.aten import HANDLERS, Emitter, PositionIds, Unsupported, slice_of
from frontend.capture import Capture, LayerCapture
from frontend.entry import Entry
from frontend.graph import Graph, GraphValue, Node, map_values
from frontend.signatures import LM_HEAD
from frontend.tables import Positions, Use
from frontend.unwritten import TAKES_UNWRITTEN, Unwritten

HANDLER_FILES = (experts, patches, routing)  # importing them fills the table of handlers, as that of aten
HISTORY = ("history_k", "history_v")
HEADS_FIRST = (0, 2, 1, 3)  # between the client's [1, S, h, D] and the model's [1, h, S, D]


@dataclass(frozen=True)
class Types:
    """All activations and parameters are of one element type.

    `schemes` has the parameters that are codes, and `orders` those whose inputs are stored in an order of
    their own, with the name of that order.
    """

    element: ElementType
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    orders: Mapping[str, str] = field(default_factory=dict)

    def parameter(self, name: str, shape: tuple[int, ...]) -> TensorType:
        return TensorType(shape, self.element, self.schemes.get(name))


@dataclass
class GraphReader:
    """Adds the ops of recorded nodes to one function."""

    function: FuncOp
    types: Types
    prefix: str = ""  # of parameters that are named relative to the layer
    constants: Iterator[Use] = field(default_factory=lambda: iter(()))  # what each constant is, in order
    table_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ids: Value | None = None  # position ids [streams, tokens]
    values: dict[int, Any] = field(default_factory=dict)  # by id of the GraphValue
    orders: dict[Value, str] = field(default_factory=dict)  # of weights whose inputs have one of their own
    taken: dict[tuple[Value, str], Value] = field(default_factory=dict)  # inputs in such orders

    def __post_init__(self) -> None:
        self.emit = Emitter(Builder(self.function.block), self.types.element)

    def bind(self, recorded: GraphValue, value: Value) -> None:
        self.values[id(recorded)] = value

    def run(self, nodes: list[Node]) -> None:
        for node in nodes:
            if any(id(result) not in self.values for result in node.results):
                self.emit.loc = NameLoc(node.path or "model")
                self._store(node, self._import(node))

    def get(self, recorded: GraphValue) -> Value:
        value: Value = self.values[id(recorded)]
        return value

    def finish(self, *results: Value) -> FuncOp:
        self.function.block.append(ReturnOp(results))
        self.function.update_type()
        return self.function

    def _import(self, node: Node) -> Any:
        if node.name == "parameter":
            return self._parameter(node)
        if node.name == "constant":
            return self._constant(node)
        return self._call(node)

    def _parameter(self, node: Node) -> Value:
        (full_name,) = node.args
        type = self.types.parameter(full_name, node.results[0].shape)
        weight = self.emit(llm.WeightOp, name=self._relative(full_name), types=[type])
        if full_name in self.types.orders:
            self.orders[weight] = self._relative(self.types.orders[full_name])
        return weight

    def _relative(self, full_name: str) -> str:
        inside = self.prefix and full_name.startswith(self.prefix)
        return full_name.removeprefix(self.prefix) if inside else f"/{full_name}"

    def _constant(self, node: Node) -> Value | PositionIds | float:
        use = next(self.constants)
        if isinstance(use, float):
            return use
        if isinstance(use, Positions):
            assert self.ids is not None, "positions are read where there are none"
            return PositionIds(self.ids, use.first, use.count)
        shape = node.results[0].shape
        if not use.by_position:
            return self.emit(llm.TableOp, name=use.name, types=[TensorType(shape, F32)])
        table = self.emit(llm.TableOp, name=use.name, types=[TensorType(self.table_shapes[use.name], F32)])
        return self.emit.reshape(self.emit(llm.GatherRowsOp, table, self.ids, streams=use.streams), shape)

    def _call(self, node: Node) -> Any:
        handler = HANDLERS.get(base_name(node.name))
        if handler is None:
            raise refusal(node, "it has no counterpart in the llm dialect")
        if node.name != "aten.cat.default" and any(0 in operand.shape for operand in node.operands()):
            raise refusal(node, "an operand has no elements")
        read = [self.values[id(operand)] for operand in node.operands()]
        if base_name(node.name) not in TAKES_UNWRITTEN and any(isinstance(x, Unwritten) for x in read):
            raise refusal(node, "an operand was not written as a whole")
        arguments = self._in_order(node, map_values((node.args, node.kwargs), self.get))
        try:
            bound = inspect.signature(handler).bind(self.emit, *arguments[0], **arguments[1])
            return handler(*bound.args, **bound.kwargs)
        except (TypeError, Unsupported) as error:
            raise refusal(node, str(error)) from error

    def _in_order(self, node: Node, arguments: Any) -> Any:
        """The arguments of a linear with its input in the order of its weight's columns."""
        if not any(self.get(operand) in self.orders for operand in node.operands()):
            return arguments
        if node.name != "linear":
            raise refusal(node, "it reads a weight that a checkpoint stores for linears (desc_act)")
        (x, weight, *rest), keywords = arguments
        order = self.orders[weight]
        if (x, order) not in self.taken:
            numbers = self.emit(llm.IndicesOp, name=order, types=[TensorType(weight.type.shape[1:], I32)])
            self.taken[x, order] = self.emit(llm.TakeOp, x, numbers)
        return (self.taken[x, order], weight, *rest), keywords

    def _store(self, node: Node, made: Any) -> None:
        values = made if isinstance(made, list | tuple) else [made]
        for recorded, value in zip(node.results, values, strict=True):
            if isinstance(value, Value) and node.name != "constant" and not is_kept(recorded.dtype, value):
                raise refusal(node, f"it computes {recorded.dtype} values")
            if isinstance(value, Value) and value.type.shape != recorded.shape:
                raise refusal(node, f"it gives {list(recorded.shape)}, imported as {value.type}")
            self.values[id(recorded)] = value


def base_name(name: str) -> str:
    """ "aten.mul.Tensor" without its overload."""
    return ".".join(name.split(".")[:2]) if name.startswith("aten.") else name


def is_kept(dtype: str, value: Value) -> bool:
    """Whether a value of the dialect can be what was recorded; truth values are floats, 0 for false."""
    is_float: bool = value.type.element.is_float
    return is_float == dtype.startswith(("float", "bfloat", "bool"))


def refusal(node: Node, why: str) -> UserError:
    return UserError(f"cannot import {node.name}: {why}, in {node.path or 'the model itself'}")


def block_function(
    net: NetAttr,
    layer: LayerCapture,
    uses: list[Use],
    tables: dict[str, tuple[int, ...]],
    types: Types,
    windows: Sequence[str | None],
    entry: Entry | None = None,
    streams: int = 1,
) -> GraphReader:
    """A layer as a function up to its results; the caller may go on from the hidden state and finishes it.

    Arguments: x, position_ids, mask, and history_k, history_v where the layer has a history. `windows` are
    for each mask that the layer reads the table of the first keys that it shows, if it hides any. With an
    `entry`, x is what tokens alone give, and `uses` begin with the constants behind that.
    """
    inputs = {node.args[0]: node.results[0] for node in layer.graph.nodes if node.name == "input"}
    _, tokens, hidden = inputs["hidden"].shape
    history = inputs["history_k"].shape[2] if "history_k" in inputs else 0
    given = {
        "x": TensorType((1, tokens, hidden), types.element),
        "position_ids": TensorType((streams, tokens), I32),
        "mask": TensorType((1, 1, tokens, history + tokens), types.element),
    }
    width = max((inputs[key].shape[3] for key in HISTORY if key in inputs), default=0)
    for key in HISTORY:
        if key in inputs:
            _, heads, length, _ = inputs[key].shape
            given[key] = TensorType((1, length, heads, width), types.element)
    function = function_for(net, given)
    args = dict(zip(given, function.args, strict=True))
    reader = GraphReader(function, types, f"{layer.path}.", iter(uses), tables, args["position_ids"])
    states = args["x"]
    if entry is not None:
        reader.bind(entry.embedded, states)
        reader.run(entry.rest)
        states = reader.get(entry.given)
    _bind_inputs(reader, layer.graph, args | {"hidden": states}, iter(windows))
    reader.run(live_nodes(layer.graph))
    return reader


def _bind_inputs(
    reader: GraphReader, graph: Graph, args: dict[str, Value], windows: Iterator[str | None]
) -> None:
    live = live_nodes(graph)
    for node in graph.nodes:
        if node.name != "input":
            continue
        role = node.args[0]
        if role.startswith("history"):
            reader.emit.loc = NameLoc(node.path)
            value = reader.emit(llm.PermuteOp, args[role], order=HEADS_FIRST)
            value = slice_of(reader.emit, value, 3, 0, node.results[0].shape[3])
        elif role == "mask" and node in live:
            value = _window_of(reader, args[role], next(windows))
        else:
            value = args[role]
        reader.bind(node.results[0], value)


def _window_of(reader: GraphReader, mask: Value, first_key: str | None) -> Value:
    """The client's mask, with what lies before the first keys of a table hidden."""
    if first_key is None:
        return mask
    table = reader.emit(llm.TableOp, name=first_key, types=[TensorType(reader.table_shapes[first_key], F32)])
    return reader.emit(llm.HideBeforeOp, mask, reader.emit(llm.GatherRowsOp, table, reader.ids))


def kv_results(reader: GraphReader, layer: LayerCapture) -> list[Value]:
    """The keys and values of this call in the client's order of axes.

    A client takes the rows of both to be as long as those of keys are, so the narrower ones are filled up.
    """
    reader.emit.loc = NameLoc(layer.path)
    both = [reader.get(value) for value in layer.graph.outputs[1:]]
    width = max(heads.type.shape[3] for heads in both)
    if any(heads.type.shape[3] != width for heads in both):
        both = [reader.emit(llm.PadOp, heads, size=width) for heads in both]
    return [reader.emit(llm.PermuteOp, heads, order=HEADS_FIRST) for heads in both]


def function_for(net: NetAttr, types: dict[str, TensorType]) -> FuncOp:
    """An empty function that says which net it is; arguments by the names that dumps call them."""
    function = FuncOp.with_args(net.stage_name, list(types.values()), names=list(types))
    function.attributes = {**function.attributes, KEY: net}
    return function


def embedding_function(net: NetAttr, run: Capture, target: GraphValue, types: Types) -> FuncOp:
    """From ids to a value that is made of them alone."""
    (ids,) = run.graph.inputs
    function = function_for(net, {"ids": TensorType(ids.shape, I32)})
    nodes = run.graph.slice_to([target], [])
    reader = GraphReader(function, types, constants=iter(numbers(nodes)))
    reader.bind(ids, function.args[0])
    reader.run(nodes)
    return reader.finish(reader.get(target))


def head_function(run: Capture, types: Types) -> FuncOp:
    """From one state [1, E] that the last layer gives to the token [1, 1] of the largest logit.

    The final norm is done here, for the one token whose logits are asked for, not at the end of the last
    layer, which then is like others.
    """
    last = run.layers[-1].result
    nodes = run.graph.slice_to([run.logits], [last])
    width, vocabulary = last.shape[-1], run.logits.shape[-1]
    function = function_for(LM_HEAD, {"hidden": TensorType((1, width), types.element)})
    reader = GraphReader(function, types, constants=iter(numbers(nodes)))
    reader.emit.loc = NameLoc(LM_HEAD.name)
    reader.bind(last, reader.emit.reshape(function.args[0], last.shape))
    reader.run(nodes)
    logits = reader.emit.reshape(reader.get(run.logits), (1, vocabulary))
    return reader.finish(reader.emit(llm.ArgmaxOp, logits))


def live_nodes(graph: Graph) -> list[Node]:
    return graph.slice_to(graph.outputs, [])


def numbers(nodes: list[Node]) -> list[Use]:
    """The constants of code outside of layers, which knows no positions: numbers only."""
    found: list[Use] = []
    for node in nodes:
        if node.name == "constant":
            data = node.args[0].data
            if data.size != 1:
                raise refusal(node, f"a constant of shape {list(data.shape)} outside of the layers")
            found.append(float(data.reshape(())[()]))
    return found
