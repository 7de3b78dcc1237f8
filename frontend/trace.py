"""The recording tensor: running a transformers module on it leaves a graph of what the module did.

A `Traced` tensor has a shape and no data. Any operation that it reaches becomes a node of the graph under
construction; an operation on real tensors alone runs for real, and its result enters the graph as a
constant if it ever meets a traced tensor. So rotary frequencies, window indices and the like need no rules.

What cannot be recorded faithfully is refused by name: reading the data of a traced tensor, writing through
a view that is not understood, and reading a view that a later write made stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from compiler.diagnostics import UserError
from frontend.graph import Constant, Graph, GraphValue, Node, map_leaves

# Functions recorded as one node; ATen would take them apart.
WHOLE: dict[Any, str] = {
    F.linear: "linear",
    torch.matmul: "matmul",
    torch.Tensor.matmul: "matmul",
    torch.Tensor.__matmul__: "matmul",
    F.softmax: "softmax",
    torch.softmax: "softmax",
    torch.Tensor.softmax: "softmax",
    F.layer_norm: "layer_norm",
    F.rms_norm: "rms_norm",
}

# Functions that ask for data which a traced tensor does not have.
READS: dict[Any, str] = {
    torch.Tensor.item: "item",
    torch.Tensor.tolist: "tolist",
    torch.Tensor.numpy: "numpy",
    torch.Tensor.__bool__: "bool",
    torch.Tensor.__int__: "int",
    torch.Tensor.__float__: "float",
    torch.Tensor.__index__: "index",
}

# How a value written to a view is put back into the tensor that it is a view of: the name of the ATen
# function with the same arguments after the first two, or "view" for those that only change the shape.
WRITE_BACK = {
    "aten.slice.Tensor": "aten.slice_scatter.default",
    "aten.select.int": "aten.select_scatter.default",
    "aten.transpose.int": "aten.transpose.int",
    "aten.t.default": "aten.t.default",
    "aten.view.default": "view",
    "aten.unsqueeze.default": "view",
    "aten.squeeze.dim": "view",
    "aten.alias.default": "view",
    "aten.detach.default": "view",
}


@dataclass(eq=False)
class Storage:
    """Memory that a tensor and its views share; a write makes every other view of it stale."""

    writes: int = 0


class Recorder:
    """The graph under construction, and the path of the module that is running."""

    current: Recorder | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.graph = Graph()
        self.cache: Any = None  # the `hooks.RecordingCache` of the model that runs
        self.segments: Any = None  # the `towers.Segments` of a tower that takes grids
        self.paths = {id(module): name for name, module in model.named_modules()}
        self.running: list[str] = [""]
        self.constants: dict[Any, tuple[torch.Tensor, Constant]] = {}
        self.outcomes: dict[Any, Any] = {}

    @property
    def path(self) -> str:
        return self.running[-1]

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Traced parameters in place of the model's, and module paths followed, while this lasts."""
        with torch.no_grad(), traced_parameters(self), self._follow_modules():
            Recorder.current = self
            try:
                yield self
            finally:
                Recorder.current = None

    @contextmanager
    def into(self, graph: Graph) -> Iterator[Graph]:
        """Record into another graph, that of a layer, while this lasts."""
        outer, self.graph = self.graph, graph
        try:
            yield graph
        finally:
            self.graph = outer

    def input(self, shape: Sequence[int], dtype: torch.dtype, *key: str) -> Traced:
        """A new input of the graph; `key` says what it stands for."""
        meta = torch.empty(tuple(shape), dtype=dtype, device="meta")
        traced: Traced = self.record("input", key, {}, meta)
        self.graph.inputs.append(traced.value)
        return traced

    def parameter(self, name: str, meta: torch.Tensor) -> GraphValue:
        if name not in self.graph.parameters:
            node = Node("parameter", (name,), path=self.path)
            (self.graph.parameters[name],) = self.graph.add(node, [signature(meta)])
        return self.graph.parameters[name]

    def constant(self, tensor: torch.Tensor) -> GraphValue:
        node = Node("constant", (self._constant(tensor),), path=self.path)
        return self.graph.add(node, [signature(tensor)])[0]

    def _constant(self, tensor: torch.Tensor) -> Constant:
        """The values as they are now; layers that share a tensor, or views of one, share the constant."""
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version)
        if key not in self.constants:
            # The tensor is kept too, so that its memory is not used again under the same key.
            self.constants[key] = (tensor, Constant(tensor.detach().numpy().copy()))
        return self.constants[key][1]

    def outcome(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What an operation returns, as meta tensors. It follows from the shapes and types of its operands,
        and layers repeat each other, so each is worked out once: that takes longer than all the rest.
        """
        key = function, frozen(args), frozen(kwargs)
        if key not in self.outcomes:
            self.outcomes[key] = function(*on_meta(args), **on_meta(kwargs))
        return self.outcomes[key]

    def record(self, name: str, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        """Append a node; `result`, of meta tensors, comes back with traced tensors in their place."""
        node = Node(name, path=self.path)
        node.args, node.kwargs = map_leaves((tuple(args), kwargs), self._operand)
        metas = [leaf for leaf in flatten(result) if isinstance(leaf, torch.Tensor)]
        values = iter(self.graph.add(node, [signature(meta) for meta in metas]))
        return map_leaves(result, lambda leaf: self._traced(leaf, values))

    def _traced(self, leaf: Any, values: Iterator[GraphValue]) -> Any:
        return Traced(self, leaf, next(values)) if isinstance(leaf, torch.Tensor) else leaf

    def _operand(self, leaf: Any) -> Any:
        if isinstance(leaf, Traced):
            return leaf.read()
        if isinstance(leaf, torch.Tensor):
            return self.constant(leaf)
        return str(leaf) if isinstance(leaf, torch.dtype | torch.device | torch.layout) else leaf

    def refuse(self, what: str) -> UserError:
        return UserError(f"cannot trace the model: {what}, in {self.path or 'the model itself'}")

    @contextmanager
    def _follow_modules(self) -> Iterator[None]:
        hooks = nn.modules.module
        before = hooks.register_module_forward_pre_hook(self._enter)
        after = hooks.register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, _args: Any) -> None:
        self.running.append(self.paths.get(id(module), self.path))

    def _leave(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        self.running.pop()


class Traced(torch.Tensor):
    """A tensor without data whose operations are recorded."""

    recorder: Recorder
    meta: torch.Tensor  # shape, strides and dtype
    graph: Graph  # that the value belongs to; a parameter belongs to any
    source: GraphValue | str  # the value of the graph, or the name of a parameter
    view_of: tuple[Traced, str, tuple[Any, ...]] | None
    memory: Storage
    seen: int  # writes to the storage that this value includes

    @staticmethod
    def __new__(cls, recorder: Recorder, meta: torch.Tensor, source: GraphValue | str) -> Traced:
        made: Traced = torch.Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
        )
        made.recorder, made.meta, made.graph, made.source = recorder, meta, recorder.graph, source
        made.view_of, made.memory, made.seen = None, Storage(), 0
        return made

    @property
    def value(self) -> GraphValue:
        if isinstance(self.source, str):
            return self.recorder.parameter(self.source, self.meta)
        return self.source

    def read(self) -> GraphValue:
        """The value as an operand; a stale view, or one of another graph, is refused."""
        if self.seen != self.memory.writes:
            raise self.recorder.refuse("a view is read after its tensor was written to")
        if self.graph is not self.recorder.graph and not isinstance(self.source, str):
            raise self.recorder.refuse("a layer and the code around it share a value beside the hidden state")
        return self.value

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Traced({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in READS:
            raise first_traced((args, kwargs)).recorder.refuse(
                f"the data of a traced tensor is read by {READS[func]}"
            )
        if func in WHOLE:
            recorder = first_traced((args, kwargs)).recorder
            return recorder.record(WHOLE[func], args, kwargs, recorder.outcome(func, args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder = first_traced((args, kwargs)).recorder
        try:
            if func._schema.is_mutable:
                return write(recorder, func, args, kwargs)
            return read(recorder, func, args, kwargs)
        except NotImplementedError as error:
            raise recorder.refuse(f"{func} depends on the data of a traced tensor") from error


def read(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record an operation that writes to none of its operands."""
    if func is torch.ops.aten._local_scalar_dense.default:
        raise recorder.refuse("the data of a traced tensor is read")
    result = recorder.record(str(func), args, kwargs, recorder.outcome(func, args, kwargs))
    if func.is_view:
        for view in flatten(result):
            view.view_of = (args[0], str(func), args[1:])
            view.memory, view.seen = args[0].memory, args[0].seen
    return result


def write(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record an in-place operation as the one that returns its result, and update the operand written to."""
    target = args[0]
    name = func._schema.name.removeprefix("aten::")
    functional = getattr(getattr(torch.ops.aten, name.removesuffix("_"), None), func._overloadname, None)
    if not name.endswith("_") or functional is None:
        raise recorder.refuse(f"{func} writes to its operands in a way that is not understood")
    if not isinstance(target, Traced):
        raise recorder.refuse(f"{func} writes a traced value into a constant")
    written = recorder.record(str(functional), args, kwargs, recorder.outcome(functional, args, kwargs))
    target.memory.writes += 1
    update(target, written)
    return target


def update(target: Traced, written: Traced) -> None:
    """Make `target` the value `written`, and so on through the tensors that it is a view of."""
    target.source, target.seen = written.value, target.memory.writes
    if target.view_of is None:
        return
    base, view, arguments = target.view_of
    recorder = target.recorder
    if view not in WRITE_BACK:
        raise recorder.refuse(f"a write through {view} is not understood")
    base.seen = target.memory.writes
    if WRITE_BACK[view] == "view":
        whole = recorder.record("aten.view.default", (written, list(base.shape)), {}, base.meta)
    elif "scatter" in WRITE_BACK[view]:
        whole = recorder.record(WRITE_BACK[view], (base, written, *arguments), {}, base.meta)
    else:
        whole = recorder.record(WRITE_BACK[view], (written, *arguments), {}, base.meta)
    update(base, whole)


@contextmanager
def traced_parameters(recorder: Recorder) -> Iterator[None]:
    """Replace each parameter, and each buffer that a checkpoint holds, by a traced tensor."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for path, module in recorder.model.named_modules(remove_duplicate=False):
        buffers = {k for k in module._buffers if k not in module._non_persistent_buffers_set}
        for table, names in ((module._parameters, set(module._parameters)), (module._buffers, buffers)):
            for name in sorted(names):
                tensor = table[name]
                if tensor is not None and not isinstance(tensor, Traced):
                    replaced.append((table, name, tensor))
                    full_name = f"{path}.{name}" if path else name
                    table[name] = Traced(recorder, tensor.detach().to("meta"), full_name)
    try:
        yield
    finally:
        for table, name, tensor in replaced:
            table[name] = tensor


def signature(tensor: torch.Tensor) -> tuple[tuple[int, ...], str]:
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def flatten(item: Any) -> list[Any]:
    found: list[Any] = []
    map_leaves(item, found.append)
    return found


def first_traced(item: Any) -> Traced:
    return next(leaf for leaf in flatten(item) if isinstance(leaf, Traced))


def on_meta(item: Any) -> Any:
    """Arguments with tensors replaced by meta tensors of the same type, and devices by meta."""
    return map_leaves(item, _leaf_on_meta)


def _leaf_on_meta(leaf: Any) -> Any:
    if isinstance(leaf, Traced):
        return leaf.meta
    if isinstance(leaf, torch.Tensor):
        return leaf.to("meta")
    return torch.device("meta") if isinstance(leaf, torch.device) else leaf


def frozen(item: Any) -> Any:
    """Arguments by all that the type and the shape of what comes of them may depend on."""
    if isinstance(item, tuple | list):
        return type(item), *map(frozen, item)
    if isinstance(item, dict):
        return tuple((key, frozen(part)) for key, part in item.items())
    if not isinstance(item, torch.Tensor):
        return type(item), item
    meta = item.meta if isinstance(item, Traced) else item
    return meta.shape, meta.stride(), meta.storage_offset(), meta.dtype
