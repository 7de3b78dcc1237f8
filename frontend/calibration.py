"""How large the inputs of a model's linears are, measured by running it layer by layer.

The model runs in float32 on some tokens, with the parameters of one layer in memory at a time. Sequences are
run apart from each other, each on one thread, and their sums are added in order: the result does not depend
on how many run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from compiler.diagnostics import UserError
from compiler.progress import track
from compiler.weights.stored import Floats, Quantized, to_float32
from frontend.binding import Weights
from frontend.capture import find_layers, head_weight_name, one_thread, unwarned

EMBEDDING_ROWS = 4096  # read at a time
# What multiplies by a parameter: where in its arguments the inputs are, and the parameter.
FACTORS: Mapping[Callable[..., Any], tuple[int, int]] = {
    torch.nn.functional.linear: (0, 1),
    torch.matmul: (0, 1),
    torch.Tensor.matmul: (0, 1),
    torch.Tensor.__matmul__: (0, 1),
    torch.mm: (0, 1),
    torch.addmm: (1, 2),
}


@dataclass
class Squares:
    """The sum of the squares of some rows, f64 [inputs], and how many there are."""

    total: torch.Tensor
    rows: int

    @classmethod
    def of(cls, inputs: torch.Tensor) -> Squares:
        rows = inputs.reshape(-1, inputs.shape[-1])
        return cls(rows.double().square_().sum(0), len(rows))

    def __add__(self, other: Squares) -> Squares:
        return Squares(self.total + other.total, self.rows + other.rows)

    @property
    def mean(self) -> Floats:
        return (self.total / max(1, self.rows)).float().numpy()


class Watch(TorchFunctionMode):
    """Sums up the squares of all that is multiplied by parameters, known by where they lie in memory."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.found: dict[str, Squares] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FACTORS:
            inputs, weight = (args[place] for place in FACTORS[func])
            name = self.names.get(weight.untyped_storage().data_ptr())
            if name is not None:
                add(self.found, name, Squares.of(inputs))
        return func(*args, **(kwargs or {}))


def add(sums: dict[str, Squares], name: str, more: Squares) -> None:
    sums[name] = sums[name] + more if name in sums else more


@torch.no_grad()
def mean_squares(model: Any, weights: Weights, tokens: np.ndarray, jobs: int) -> dict[str, Floats]:
    """The mean square of each input [inputs] of what multiplies by a parameter, by the parameter's full name.

    `model` is a native one that computes by the library's own functions; `tokens` are [sequences, tokens], of
    which `jobs` sequences are run at the same time. Experts have one mean for all of a layer. UserError for a
    model whose layers do not hand states from one to the next.
    """
    found: dict[str, Squares] = {}
    paths = {id(module): path for path, module in model.named_modules()}
    with one_thread(), unwarned(), ThreadPoolExecutor(jobs) as pool:
        outer = Outer(model, weights, paths)
        ids = [torch.from_numpy(row[None]) for row in tokens.astype(np.int64)]
        states = [outer.before_layers(each) for each in ids]
        for call in track(outer.calls, "calibrate", " layers"):
            with loaded(call.layer, paths[id(call.layer)], weights) as names:
                ran = [pool.submit(call.run, each, names) for each in states]
                results = [each.result() for each in ran]
            states = [state for state, _ in results]
            for _, sums in results:
                for name, squares in sums.items():
                    add(found, name, squares)
        for each, state in zip(ids, states, strict=True):
            add(found, head_weight_name(model), Squares.of(outer.before_head(each, state)))
    return {name: squares.mean for name, squares in found.items()}


@dataclass(frozen=True)
class Call:
    """How a model calls one of its layers, apart from the hidden state."""

    layer: nn.Module
    arguments: tuple[Any, ...]  # with None in the place of the hidden state
    keywords: dict[str, Any]

    def run(
        self, state: torch.Tensor, names: Mapping[int, str]
    ) -> tuple[torch.Tensor, dict[str, Squares]]:
        """What the layer makes of a state, and of what it multiplies by."""
        arguments, keywords = given(self.arguments, self.keywords, state)
        with torch.no_grad(), Watch(names) as watch:
            made = self.layer(*arguments, **keywords)
        return next(leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)), watch.found


def given(arguments: tuple[Any, ...], keywords: dict[str, Any], state: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments of a layer with another hidden state, the first of them or by its name."""
    if arguments:
        return (state, *arguments[1:]), keywords
    return arguments, keywords | {"hidden_states": state}


class Reached(Exception):
    """The head is about to run on these states."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


class Outer:
    """A model around its layers, which hand on what they are given, up to its head."""

    def __init__(self, model: Any, weights: Weights, paths: Mapping[int, str]) -> None:
        self.model, self.weights, self.paths = model, weights, paths
        self.layers = find_layers(model)
        self.calls: list[Call] = []

    def before_layers(self, ids: torch.Tensor) -> torch.Tensor:
        """What the first layer is given for ids [1, tokens]. All have as many tokens, so that layers are
        called alike.
        """
        states: list[torch.Tensor] = []
        self.calls = []

        def stub(layer: nn.Module, state: torch.Tensor) -> torch.Tensor:
            states.append(state)
            return state

        self._run(ids, stub)
        if any(state is not states[0] for state in states) or len(states) != len(self.layers):
            kind = type(self.model).__name__
            raise UserError(f"--calibrate: the layers of {kind} do not hand states from one to the next")
        return states[0]

    def before_head(self, ids: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """What the head is given when the last layer gives `state`."""
        last = self.layers[-1]
        return self._run(ids, lambda layer, passed: state if layer is last else passed)

    def _run(self, ids: torch.Tensor, stub: Callable[[nn.Module, Any], Any]) -> torch.Tensor:
        def forward(layer: nn.Module, *arguments: Any, **keywords: Any) -> Any:
            state = arguments[0] if arguments else keywords["hidden_states"]
            self.calls.append(Call(layer, *given(arguments, keywords, None)))
            return stub(layer, state)

        with ExitStack() as stack:
            for layer in self.layers:
                layer.forward = lambda *a, _layer=layer, **k: forward(_layer, *a, **k)
                stack.callback(delattr, layer, "forward")
            head = self.model.get_output_embeddings()
            stack.callback(head.register_forward_pre_hook(reach).remove)
            known = stack.enter_context(self._loaded(ids))
            try:
                self.model(input_ids=known, use_cache=False)
            except Reached as reached:
                return reached.states
        raise UserError(f"--calibrate: the head of {type(self.model).__name__} does not run")

    @contextmanager
    def _loaded(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """With the parameters of all but layers and head; of the embedding only the rows of `ids`, which are
        given by their numbers in it.
        """
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        apart = {id(each) for layer in (*self.layers, head) for each in layer.modules()}
        numbers, places = np.unique(ids.numpy(), return_inverse=True)
        with ExitStack() as stack:
            for path, module in self.model.named_modules():
                if module is embedding:
                    table = rows_of(self.weights, f"{path}.weight", numbers)
                    stack.enter_context(replaced(module._parameters, "weight", table))
                    stack.enter_context(replaced(vars(module), "padding_idx", None))
                elif id(module) not in apart:
                    stack.enter_context(loaded(module, path, self.weights, recurse=False))
            yield torch.from_numpy(places.reshape(ids.shape))


def reach(head: nn.Module, arguments: tuple[Any, ...]) -> None:
    raise Reached(arguments[0])


@contextmanager
def loaded(
    root: nn.Module, path: str, weights: Weights, recurse: bool = True
) -> Iterator[dict[int, str]]:
    """With the checkpoint's values of the parameters below a module; gives their names by where they lie."""
    names: dict[int, str] = {}
    modules = root.named_modules(prefix=path) if recurse else [(path, root)]
    with ExitStack() as stack:
        for prefix, module in modules:
            for table in (module._parameters, module._buffers):
                for name in [name for name in table if f"{prefix}.{name}" in weights.tensors]:
                    value = torch.from_numpy(values_of(weights, f"{prefix}.{name}"))
                    stack.enter_context(replaced(table, name, value))
                    names[value.untyped_storage().data_ptr()] = f"{prefix}.{name}"
        yield names


@contextmanager
def replaced(table: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    """With another value of a name; a parameter stays one."""
    before = table[name]
    table[name] = nn.Parameter(value, False) if isinstance(before, nn.Parameter) else value
    try:
        yield
    finally:
        table[name] = before


def values_of(weights: Weights, name: str) -> Floats:
    """The values that a program computes with, f32; inputs of codes in the model's order."""
    values = weights.read(name)
    if not isinstance(values, Quantized):
        return to_float32(values)
    floats = values.dequantize()
    if name in weights.orders:
        ordered = np.empty_like(floats)
        ordered[:, weights.read_floats(weights.orders[name])] = floats
        return ordered
    return floats


def rows_of(weights: Weights, name: str, numbers: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Some rows of a parameter, f32, by their sorted numbers; few are in memory at a time."""
    found: list[Floats] = []
    for start in range(0, weights.shape(name)[0], EMBEDDING_ROWS):
        stop = min(start + EMBEDDING_ROWS, weights.shape(name)[0])
        here = [number - start for number in numbers if start <= number < stop]
        if here:
            found.append(to_float32(weights.read_floats(name, slice(start, stop))[here]))
    return torch.from_numpy(np.concatenate(found))
